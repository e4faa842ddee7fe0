"""docs/rpc.md is true: every example gives the answer it shows, and its table is the registry."""

import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from tasks.lanes import WORKERS, Lane
from teg.adapters.gateway_db import rpc_journal
from teg.adapters.host.command import run_command
from teg.domain.ports import CommandResult
from teg.domain.rpc import dispatcher, methods, parameters
from teg.domain.rpc.command_allowlist import CommandList, parse_command_list
from teg.domain.rpc.journal import ACKNOWLEDGED_STANDS_S, UNACKNOWLEDGED_STANDS_S
from teg.domain.rpc.methods import Group
from teg.domain.server import wire
from tests.support.rpc import FakeMachine, Rig

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "rpc.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```json call ?(\w*)\n(.*?)```\n\n```json answer\n(.*?)```", PAGE, re.DOTALL)
LIST = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


class Machine(FakeMachine):
    """Power is only noted, commands are real."""

    def __init__(self) -> None:
        super().__init__()
        self.stopping = threading.Event()

    def run(self, argv: Sequence[str], timeout_s: float, output_cap_bytes: int = 65_536) -> CommandResult:
        return run_command(argv, timeout_s, output_cap_bytes, self.stopping)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gateway.db"


def make(path: Path, mode: str) -> Rig:
    run: str | CommandList = parse_command_list(LIST[0]) if mode == "list" else mode or "on"
    return Rig(path, run, machine=Machine())


@pytest.fixture
def rigs(path: Path) -> Iterator[dict[str, Rig]]:
    found = {mode: make(path.with_name(f"{mode}.db"), mode) for mode in ("", "off", "on", "list")}
    yield found
    for rig in found.values():
        rig.database.close()


def like(shown: Any, given: Any) -> bool:
    """Equal, where `…` in a text stands for anything, and as a last line for any further lines."""
    if isinstance(shown, str) and "…" in shown:
        pattern = ".*".join(map(re.escape, shown.split("…")))
        return re.fullmatch(pattern, given if isinstance(given, str) else str(given), re.DOTALL) is not None
    if isinstance(shown, dict) and isinstance(given, dict):
        return shown.keys() == given.keys() and all(like(shown[key], given[key]) for key in shown)
    if isinstance(shown, list) and isinstance(given, list):
        if shown[-1:] == ["…"]:
            shown, given = shown[:-1], given[: len(shown) - 1]
        return len(shown) == len(given) and all(map(like, shown, given))
    return bool(shown == given)


def test_every_example_gives_the_answer_it_shows(rigs: dict[str, Rig]) -> None:
    assert len(EXAMPLES) >= 25
    for number, (mode, call, answer) in enumerate(EXAMPLES):
        rig, request = rigs[mode], orjson.loads(call)
        rig.clock.advance(1)
        with rig.serving():
            given = rig.call(number, request["method"], request.get("params"))
        assert like(orjson.loads(answer), given), f"{call} gives {given!r}"


def test_every_method_has_an_example() -> None:
    shown = {orjson.loads(call)["method"] for _, call, _ in EXAMPLES}
    assert shown == set(table())


def table() -> dict[str, list[str]]:
    section = PAGE.partition("## All methods")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    return {row[0].strip(" `"): [cell.strip() for cell in row[1:]] for row in rows}


def test_the_table_is_the_registry(rigs: dict[str, Rig]) -> None:
    assert list(table()) == list(rigs[""].methods)


PARAMS: dict[str, Any] = {
    "run_command": {"command": ["true"]},
    "archive_republish_messages": {"start_timestamp_ms": 1_767_225_600_000, "end_timestamp_ms": 1_767_225_600_001},
    "archive_discard_messages": {"start_timestamp_ms": 1, "end_timestamp_ms": 2},
    "dead_letters": {"action": "drop", "ids": [1]},
    "set_log_level": {"level": "INFO"},
}


def test_what_changes_something_is_done_at_most_once(rigs: dict[str, Rig]) -> None:
    for name, (_, _, changes) in table().items():
        assert rigs["on"].methods[name].plan(PARAMS.get(name)).once == (changes == "yes"), name


def test_the_parameters_are_those_that_are_read() -> None:
    source = (ROOT / "teg" / "domain" / "rpc" / "parameters.py").read_text(encoding="utf-8")
    for name, (_, taken, _) in table().items():
        for parameter in re.findall(r"`(\w+)`", taken):
            assert f'"{parameter}"' in source, f"{name}: {parameter}"


def test_the_numbers_of_the_page_are_those_of_the_code() -> None:
    assert (rpc_journal.KEPT_EFFECTS, rpc_journal.KEPT_QUICK) == (2_000, 2_000)
    assert (dispatcher.CALLS_PER_S, dispatcher.CALL_BURST, dispatcher.LATEST_START_MS) == (5, 20, 10_000)
    assert methods.POWER_SPACING_S == 300
    assert (parameters.COMMAND_TIMEOUT_S, parameters.MAX_COMMAND_TIMEOUT_S) == (30, 60)
    assert (parameters.MAX_LINES, parameters.MAX_DEAD_LETTERS, parameters.MAX_MINUTES) == (1000, 100, 1440)
    assert wire.MAX_PAYLOAD_BYTES == 60_000


def test_the_decision_names_what_the_code_does() -> None:
    text = (ROOT / "docs" / "decisions" / "0020-rpc-at-most-once.md").read_text(encoding="utf-8")
    assert f"**{ACKNOWLEDGED_STANDS_S} s**" in text
    assert f"**{UNACKNOWLEDGED_STANDS_S // 3600} h**" in text
    assert WORKERS[Lane.COMMAND] == len(Group) == 5
