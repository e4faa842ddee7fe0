"""Every example of docs/files.md is executed: attributes set, files looked at, reports compared."""

import re
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest

from teg.adapters import confined_files as adapter
from teg.domain.files import definitions, reconciler, reports
from tests.support.remote_files import Device

PAGE = Path(__file__).resolve().parents[3] / "docs" / "files.md"
BLOCK = re.compile(r"^```(\w+) ([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Step:
    kind: str
    name: str
    after_s: int
    offline: bool
    body: str


def sections() -> dict[str, list[Step]]:
    found = {}
    for section in PAGE.read_text().split("\n## ")[1:]:
        title = section.partition("\n")[0]
        if steps := [parse(language, info, body) for language, info, body in BLOCK.findall(section)]:
            found[title] = steps
    return found


def parse(language: str, info: str, body: str) -> Step:
    words = dict(word.partition("=")[::2] for word in info.split())
    kind = next(word for word in ("shared", "client", "file", "local") if word in words)
    assert language == ("json" if kind in ("shared", "client") else "text")
    return Step(kind, words[kind], int(words.get("after", "0")), "offline" in words, body)


def run(step: Step, device: Device) -> None:
    if step.after_s:
        device.server.online = not step.offline
        device.wait(step.after_s)
        device.server.online = True
    if step.kind == "shared":
        device.server.shared |= orjson.loads(step.body)
        device.files.reconcile()
    elif step.kind == "client":
        expected = orjson.loads(step.body.replace("TEG_FILE_ROOTS: $DATA_PATH", f"TEG_FILE_ROOTS: {device.root}"))
        assert {key: device.server.client.get(key) for key in expected} == expected
    elif step.kind == "local":
        (device.root / step.name).write_text(step.body)
    else:
        assert (device.root / step.name).read_text().rstrip("\n") == step.body.rstrip("\n")


@pytest.mark.parametrize("title", sections())
def test_the_examples_of_a_section_in_their_order(title: str, tmp_path: Path) -> None:
    root = tmp_path / "controller"
    root.mkdir()
    device = Device(root)
    for step in sections()[title]:
        run(step, device)


def test_every_block_of_the_page_is_executed() -> None:
    text = PAGE.read_text()
    assert text.count("\n```") == 2 * len(BLOCK.findall(text))
    assert len(BLOCK.findall(text)) >= 25


@pytest.mark.parametrize(
    "said",
    [
        f"`{reports.NO_FILE}`",
        f"`{reports.EMPTY_FILE}`",
        f"`{reports.TOO_LARGE} ",
        f"`{reports.NOT_TEXT} ",
        f"`{reports.FILES_ERROR}`",
        f"`{adapter.NEW_FILE_MODE:04o}`",
        f"{definitions.MAX_FILE_BYTES >> 20} MiB",
        f"{definitions.MAX_TOTAL_BYTES >> 20} MiB for all",
        f"within {reconciler.CHECK_INTERVAL_S:.0f} seconds",
        *(f"| `{field}` |" for field in ("path", "encoding", "write_version", "restart_controller_on_change")),
        *(f"| `{field}` |" for field in ("create_if_not_exist", "mode", "confirm_s")),
    ],
)
def test_the_page_says_what_the_code_does(said: str) -> None:
    assert said in PAGE.read_text()
