"""Every fake of a port is run by a contract suite, beside the real adapter, or says here why not."""

from pathlib import Path

import pytest

from tests.support.fakes import fakes, under_contract

ROOT = Path(__file__).resolve().parents[2]

#: "file:class" → why it has no contract of its own; an entry that is not needed is a fault.
WITHOUT_CONTRACT = {
    "tests/support/queue_file.py:FakeTime": "no port: it turns Huey's own clock and ours together",
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
