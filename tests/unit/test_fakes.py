"""Every fake of a port is run by a contract suite, beside the real adapter, or says here why not."""

from pathlib import Path

import pytest

from tests.support.fakes import fakes, under_contract

ROOT = Path(__file__).resolve().parents[2]

#: "file:class" → why it has no contract of its own; an entry that is not needed is a fault.
WITHOUT_CONTRACT = {
    "tests/unit/adapters/test_touched_files.py:StubbornInbox": "stays locked; the real one: test_inbox.py",
    "tests/support/client_file.py:FakeClock": "the client's own `time` function, no port",
    "tests/support/file_driver.py:Clock": "a frozen moment in a child process; nothing turns it",
    "tests/support/file_driver.py:Controller": "in a child process that is killed while it writes",
    "tests/support/ota_world.py:FakeKeys": "constant lists by design; the table: test_required_keys.py",
    "tests/support/ota_world.py:FakeReport": "keeps what it is told; the Reporter's parts have contracts",
    "tests/support/ota_world.py:FakeSource": "a scripted source; the three real ones run in test_sources.py",
    "tests/support/own_reports.py:FakeSession": "`deliver` and `connected` only; the whole: test_session_contract.py",
    "tests/support/queue_file.py:FakeTime": "moves Huey's and our clock together, no port",
    "tests/support/remote_files.py:Controller": "counts restarts and gives a heartbeat; the supervisor runs in flows",
    "tests/support/rpc.py:FakeController": "scripted answers; the supervisor is the only real one",
    "tests/support/rpc.py:FakeFiles": "counts one call",
    "tests/support/tasks.py:FakeServices": "a bag of stand-ins, no port",
    "tests/unit/ota/test_package_download.py:FakeServer": "a scripted server that sends what no real one should",
    "tests/unit/ota/test_sources.py:FakeRepository": "scripted; real repositories: tests/unit/adapters/git_repository/",
    "tests/unit/ota/test_sources.py:FakeSession": "answers each request with the same bytes, as a hostile server may",
    "tests/unit/telemetry/test_clock_steps.py:Device": "a clock with a step in it, over a real file",
    "tests/unit/telemetry/test_retention.py:FakeArchive": "sizes only; the real one: test_outbox.py",
    "tests/unit/test_self_watch.py:FakeProcess": "ends the process in the real one",
}


def test_every_fake_is_under_contract_or_says_why_not() -> None:
    assert sorted(fakes(ROOT) - under_contract(ROOT)) == sorted(WITHOUT_CONTRACT)


def plant(root: Path, file: str, text: str) -> None:
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


PORT = "from typing import Protocol\nclass Door(Protocol):\n" + "".join(
    f"    def {name}(self) -> None: ...\n" for name in ("open", "shut", "lock")
)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("class FakeBell:\n    pass\n", "FakeBell"),
        (PORT.replace("Protocol", "object"), "Door"),
        ("def test() -> None:\n    class FakeDoor:\n        pass\n", "FakeDoor"),
    ],
)
def test_a_new_fake_is_seen_until_a_suite_runs_it(tmp_path: Path, text: str, name: str) -> None:
    plant(tmp_path, "teg/domain/ports.py", PORT)
    plant(tmp_path, "tests/support/doors.py", text)
    planted = {f"tests/support/doors.py:{name}"}
    assert fakes(tmp_path) - under_contract(tmp_path) == planted
    plant(tmp_path, "tests/unit/test_door.py", f"from tests.support.doors import {name}")
    assert fakes(tmp_path) - under_contract(tmp_path) == planted, "not a contract suite"
    plant(tmp_path, "tests/unit/test_door_contract.py", f"from tests.support.doors import {name}")
    assert fakes(tmp_path) - under_contract(tmp_path) == set()


def test_a_suite_may_name_the_module(tmp_path: Path) -> None:
    plant(tmp_path, "teg/domain/ports.py", PORT)
    plant(tmp_path, "tests/support/doors.py", "class FakeDoor:\n    pass\n")
    plant(tmp_path, "tests/unit/test_door_contract.py", "from tests.support import doors\nMADE = doors.FakeDoor()\n")
    assert fakes(tmp_path) - under_contract(tmp_path) == set()
