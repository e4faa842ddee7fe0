"""requirements.lock is what constraints.txt says, with the hashes of every file."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCK = (ROOT / "requirements.lock").read_text()


def _pins(text: str) -> dict[str, str]:
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", text, re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


def test_the_lock_has_the_versions_that_are_tested() -> None:
    tested, locked = _pins((ROOT / "constraints.txt").read_text()), _pins(LOCK)
    assert len(tested) > 40
    assert {name: locked.get(name) for name in tested} == tested


def test_every_package_has_its_hashes() -> None:
    entries = re.split(r"^(?=[A-Za-z0-9])", LOCK, flags=re.MULTILINE)[1:]
    assert len(entries) >= 50
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []
