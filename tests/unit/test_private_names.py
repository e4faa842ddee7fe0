"""Tests look at what the users of a class or module see; where they reach further, it stands here with its reason."""

from pathlib import Path

import pytest

from tests.support.private_names import reaches

ROOT = Path(__file__).resolve().parents[2]

_CONFINED = "the code of the confined process is replaced by an attacker's"
_TAKEN_OUT = "a protection is taken out, to see that its test fails"
_BOUNDED = "how much is remembered is seen nowhere else"
_STATEMENTS = "SQLite is asked through the connection that the class holds open"

#: file → (lines, why). The list only shrinks: fewer lines than stand here are a fault, too.
ALLOWED: dict[str, tuple[int, str]] = {
    "tests/faults/test_slices.py": (2, "whose turn it is to write, at every step of a fault run"),
    "tests/flows/queue/test_workers.py": (1, "Huey's own table of signals, which nothing shows"),
    "tests/support/protections.py": (10, _TAKEN_OUT),
    "tests/support/publishers.py": (
        1,
        "a link that has shown what it carries, without a hundred publishes before each test",
    ),
    "tests/support/queue_file.py": (1, "whether a task waits, also where the file cannot be asked"),
    "tests/system/docker/test_hostile_packages.py": (1, "the Docker client's own: a raw request to the real engine"),
    "tests/system/test_hostile_inbox_reader.py": (2, _CONFINED),
    "tests/system/test_session_start.py": (2, "the stand-in's loop is stopped in the middle of a message"),
    "tests/unit/adapters/mqtt_session/test_publishing.py": (
        13,
        "what a message leaves behind in memory, and paho's races",
    ),
    "tests/unit/adapters/test_damaged_archive.py": (1, "the moment at which the file is compared"),
    "tests/unit/adapters/test_docker_answers.py": (1, "nanoseconds that the engine rounds away"),
    "tests/unit/adapters/test_docker_engine_sick.py": (1, "a deadline of a tenth of a second on the same engine"),
    "tests/unit/adapters/test_docker_profile.py": (1, "programs that other machines do not have"),
    "tests/unit/adapters/test_host.py": (1, _BOUNDED),
    "tests/unit/adapters/test_inbox.py": (3, "the request that a crash comes after; the kernel's end of a watch"),
    "tests/unit/adapters/test_inbox_confinement.py": (1, _CONFINED),
    "tests/unit/adapters/test_inbox_reader.py": (3, _CONFINED),
    "tests/unit/adapters/test_inbox_rights.py": (2, _CONFINED),
    "tests/unit/adapters/test_look_through.py": (
        1,
        "this thread's connection is opened anew, as after another one's change",
    ),
    "tests/unit/adapters/test_processor_time.py": (10, "the confined process: its code, its clock, its end"),
    "tests/unit/adapters/test_queue_file.py": (3, _STATEMENTS),
    "tests/unit/adapters/test_touched_files.py": (4, "another program's write between two looks of one connection"),
    "tests/unit/controller/test_client_file.py": (1, "another thread that never gives the lock back"),
    "tests/unit/controller/test_controller_client.py": (7, _STATEMENTS),
    "tests/unit/controller/test_docs.py": (1, "a figure of the page"),
    "tests/unit/controller/test_example_controller.py": (2, "a part of an example that runs for ever"),
    "tests/unit/controller/test_waiting.py": (3, "paths and times of a container, on this machine"),
    "tests/unit/page/test_listener.py": (3, "that the server is made, not only that the kernel takes connections"),
    "tests/unit/page/test_sessions.py": (2, _BOUNDED),
    "tests/unit/page/test_writes.py": (1, "as in test_listener.py"),
    "tests/unit/queue/test_instance_lock.py": (1, "a lock that is held, without a consumer that runs"),
    "tests/unit/queue/test_queue_name.py": (1, "another machine's serial number"),
    "tests/unit/queue/test_storage.py": (4, "Huey's and redis' own settings, which nothing shows"),
    "tests/unit/telemetry/test_doubtful_commits.py": (1, "an error between the commit and its report"),
    "tests/unit/telemetry/test_few_writes.py": (3, "frames of the log as they come; a mark that was just written"),
    "tests/unit/telemetry/test_ingest.py": (1, "the request that a crash comes after"),
    "tests/unit/telemetry/test_judging.py": (2, "what is drawn by chance each time"),
    "tests/unit/telemetry/test_named_keys.py": (1, _BOUNDED),
    "tests/unit/telemetry/test_publisher_handover.py": (2, "what is on its way for another thread"),
}


def test_tests_use_what_users_see() -> None:
    found = reaches(ROOT)
    counted = {file: len(lines) for file, lines in found.items()}
    assert counted == {file: lines for file, (lines, _) in ALLOWED.items()}, found


def plant(root: Path, file: str, text: str) -> Path:
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return root


PRODUCT = (
    "_START = 1\nclass Door:\n    def __init__(self) -> None:\n        self._open = False\n    def _turn(self): ...\n"
)


@pytest.mark.parametrize(
    "line",
    [
        "assert door._open",
        "door._open = True",
        "door._turn()",
        "from teg.domain.door import _START",
        'monkeypatch.setattr(door, "_turn", None)',
        'monkeypatch.setattr("teg.domain.door._START", None)',
        "assert self.door._open",
    ],
)
def test_a_planted_reach_is_seen(tmp_path: Path, line: str) -> None:
    plant(tmp_path, "teg/domain/door.py", PRODUCT)
    plant(tmp_path, "tests/unit/test_door.py", f"\n{line}\n")
    [[found]] = reaches(tmp_path).values()
    assert found.startswith("2: _")


@pytest.mark.parametrize(
    "text",
    [
        "assert door.open",
        "os._exit(0)",
        "client._sock",
        "class Fake:\n    _open = 1\nassert Fake()._open",
        "self._open",
    ],
)
def test_what_is_no_product_of_ours_or_a_tests_own_is_not(tmp_path: Path, text: str) -> None:
    plant(tmp_path, "teg/domain/door.py", PRODUCT)
    plant(tmp_path, "tests/unit/test_door.py", text)
    assert reaches(tmp_path) == {}
