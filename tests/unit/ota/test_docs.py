"""docs/ota.md says what the code does: states, settings, and the words of every failure."""

import re
from pathlib import Path

import pytest

from teg.domain.ota.assignment import SwState
from teg.settings import Settings

ROOT = Path(__file__).resolve().parents[3]
DOC = (ROOT / "docs" / "ota.md").read_text()
SOURCES = "\n".join(
    path.read_text() for folder in ("domain", "adapters") for path in sorted((ROOT / "teg" / folder).rglob("*.py"))
)


def table(heading: str) -> list[str]:
    """The first column of the table under `heading`."""
    section = DOC.split(f"## {heading}\n")[1].split("\n## ")[0]
    return [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("| `")]


def test_every_state_is_explained() -> None:
    named = {state for cell in table("What ThingsBoard shows") for state in re.findall(r"`(\w+)`", cell)}
    assert named == set(SwState) | {"QUEUED", "INITIATED"}


def test_every_setting_exists() -> None:
    names = {name for cell in table("Settings") for name in re.findall(r"TEG_\w+", cell)}
    assert len(names) == 11
    text = (ROOT / "teg" / "settings.py").read_text()
    assert [name for name in sorted(names) if f'"{name}"' not in text] == []


def test_the_default_of_the_trial_is_the_stated_one(tmp_path: Path) -> None:
    settings = Settings.from_environment({"TB_HOST": "h", "TB_PORT": "1", "TEG_DATA_PATH": str(tmp_path)})
    assert f"| `TEG_OTA_TRIAL_S` | `{settings.ota_trial_s}` |" in DOC


ERRORS = [phrase for cell in table("When something goes wrong") for phrase in re.findall(r"`([^`]+)`", cell)]


@pytest.mark.parametrize("phrase", ERRORS)
def test_the_words_of_every_failure_are_those_of_the_code(phrase: str) -> None:
    code = re.sub(r"\{[^{}]*\}", "…", re.sub(r'"\s*\n\s*f?"', "", SOURCES))
    for part in phrase.split("…"):
        assert part.strip() in code


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", DOC):
        assert (ROOT / "docs" / target).exists(), target
