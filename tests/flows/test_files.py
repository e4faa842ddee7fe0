"""From what the queue runs to the bytes on disk and the attributes on the server, in immediate mode."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huey.signals import SIGNAL_ERROR

from tasks.attributes import handle_attribute_push
from tasks.files import check_files, reconcile_files, restart_controller_for_files
from tasks.in_memory import Triggers
from tasks.queue import huey
from teg.domain.errors import Unavailable
from tests.support.remote_files import Device, md5, services_with


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    """A device whose tasks run at once; an exception in a task fails the test."""
    root = tmp_path / "controller"
    root.mkdir()
    device = Device(root)
    errors: list[str] = []

    @huey.signal(SIGNAL_ERROR)  # type: ignore[untyped-decorator, unused-ignore]
    def note(_: Any, task: Any, error: BaseException) -> None:
        errors.append(f"{task.name}: {error!r}")

    huey.immediate = True
    with huey.serving(services_with(files=device.files)):
        yield device
    flush()
    huey.immediate = False
    huey.disconnect_signal(note, SIGNAL_ERROR)
    assert errors == []


def flush() -> None:
    """Lose the whole queue, waiting retries included."""
    huey.close()
    huey.triggers = Triggers()


def push(device: Device, **shared: Any) -> None:
    """The operator sets attributes; the device is told which."""
    device.server.shared |= shared
    handle_attribute_push(sorted(shared), [])


def delete(device: Device, *keys: str) -> None:
    for key in keys:
        device.server.shared.pop(key, None)
    handle_attribute_push([], list(keys))


def let_time_pass(device: Device, seconds: int) -> None:
    for _ in range(seconds):
        device.clock.seconds += 1
        if device.files.take_due():  # as the timetable asks
            check_files()


def test_definitions_then_contents(device: Device) -> None:
    push(device, FILES={"cfg": {"path": "$DATA_PATH/cfg", "write_version": 1}})
    assert device.read("cfg") == "E_NOFILE"
    push(device, FILE_CONTENT_cfg="hello\n")
    assert (device.root / "cfg").read_text() == "hello\n"
    assert device.hashes == {"cfg": {"hash": md5(b"hello\n"), "write_version": 1}}
    assert device.read("cfg") == "hello\n"


def test_contents_then_definitions(device: Device) -> None:
    push(device, FILE_CONTENT_cfg="hello")
    push(device, FILES={"cfg": {"path": "$DATA_PATH/cfg"}})
    assert (device.root / "cfg").read_text() == "hello"


def test_everything_in_one_push(device: Device) -> None:
    push(
        device,
        FILES={"a": {"path": "$DATA_PATH/a"}, "b": {"path": "$DATA_PATH/b", "encoding": "json"}},
        FILE_CONTENT_a="1a",
        FILE_CONTENT_b=[1],
    )
    assert ((device.root / "a").read_text(), (device.root / "b").read_text()) == ("1a", "[1]")


def test_pushes_that_arrive_swapped(device: Device) -> None:
    """Only the name of the key is believed: the value is asked for, whatever order the pushes came in."""
    device.server.shared |= {"FILES": {"cfg": {"path": "$DATA_PATH/cfg"}}, "FILE_CONTENT_cfg": "second"}
    handle_attribute_push(["FILE_CONTENT_cfg"], [])  # this one carried "second"
    handle_attribute_push(["FILE_CONTENT_cfg"], [])  # and this one, late, "first"
    assert (device.root / "cfg").read_text() == "second"


def test_an_old_snapshot_after_a_newer_push(device: Device) -> None:
    push(device, FILES={"cfg": {"path": "$DATA_PATH/cfg"}}, FILE_CONTENT_cfg="old")

    def newer_push_overtakes_the_answer() -> None:
        device.server.before_answer = lambda: None
        push(device, FILE_CONTENT_cfg="new")

    device.server.before_answer = newer_push_overtakes_the_answer
    reconcile_files()
    assert (device.root / "cfg").read_text() == "new"


def test_deleted_content_and_deleted_definition(device: Device) -> None:
    push(device, FILES={"cfg": {"path": "$DATA_PATH/cfg"}}, FILE_CONTENT_cfg="x")
    delete(device, "FILE_CONTENT_cfg")
    (device.root / "cfg").write_text("local")
    let_time_pass(device, 31)
    assert device.read("cfg") == "local"
    delete(device, "FILES")
    assert (device.read("cfg"), device.hashes) == ("", {})
    assert (device.root / "cfg").read_text() == "local"


def test_keys_of_others_cause_no_request(device: Device) -> None:
    push(device, upload_interval=5)
    assert device.server.requests == []


def test_drift_is_undone_by_the_watch_within_thirty_seconds(device: Device) -> None:
    push(device, FILES={"cfg": {"path": "$DATA_PATH/cfg"}}, FILE_CONTENT_cfg="wanted")
    (device.root / "cfg").write_text("edited by hand")
    let_time_pass(device, 31)
    assert (device.root / "cfg").read_text() == "wanted"


def test_a_change_restarts_the_controller_on_its_own_lane(device: Device) -> None:
    push(device, FILES={"cfg": {"path": "$DATA_PATH/cfg", "restart_controller_on_change": True}}, FILE_CONTENT_cfg="x")
    assert device.controller.restarts == ["remote file changed: cfg"]
    push(device, FILE_CONTENT_cfg="x")
    assert len(device.controller.restarts) == 1


def test_an_answer_that_never_comes_is_asked_for_again_by_the_retry(device: Device) -> None:
    device.server.shared |= {"FILES": {"cfg": {"path": "$DATA_PATH/cfg"}}, "FILE_CONTENT_cfg": "x"}
    device.server.online = False
    reconcile_files()
    (retry,) = huey.scheduled()
    device.server.online = True
    huey.execute(retry, timestamp=retry.eta)
    assert (device.root / "cfg").read_text() == "x"


def test_an_answer_that_never_comes_is_asked_for_again_by_the_watch(device: Device) -> None:
    """Deleting the queue loses the retry; the check finds that the answer is still missing."""
    device.server.shared |= {"FILES": {"cfg": {"path": "$DATA_PATH/cfg"}}, "FILE_CONTENT_cfg": "x"}
    device.server.online = False
    reconcile_files()
    flush()
    device.server.online = True
    let_time_pass(device, 31)
    assert (device.root / "cfg").read_text() == "x"


def test_a_restart_that_is_not_possible_now_is_tried_again(device: Device) -> None:
    device.controller.problem = Unavailable("Docker does not answer")
    push(device, FILES={"cfg": {"path": "$DATA_PATH/cfg", "restart_controller_on_change": True}}, FILE_CONTENT_cfg="x")
    assert (device.root / "cfg").read_text() == "x"
    flush()
    device.controller.problem = None
    let_time_pass(device, 31)
    assert len(device.controller.restarts) == 1
    restart_controller_for_files()
    assert len(device.controller.restarts) == 1


def test_a_trial_is_confirmed_by_the_watch_in_good_time(device: Device) -> None:
    push(device, FILES={"net": {"path": "$DATA_PATH/net", "confirm_s": 4}}, FILE_CONTENT_net="new")
    let_time_pass(device, 4)
    assert device.server.client["FILE_CONFIRM_net"] == "confirmed"


def test_a_trial_is_put_back_by_the_watch_in_good_time(device: Device) -> None:
    (device.root / "net").write_text("old")
    push(device, FILES={"net": {"path": "$DATA_PATH/net", "confirm_s": 4}}, FILE_CONTENT_net="new")
    device.server.online = False
    let_time_pass(device, 3)
    assert (device.root / "net").read_text() == "new"
    let_time_pass(device, 2)
    assert (device.root / "net").read_text() == "old"


def test_init_files_tells_everything_anew(device: Device) -> None:
    push(device, FILES={"cfg": {"path": "$DATA_PATH/cfg"}}, FILE_CONTENT_cfg="x")
    device.server.client.clear()
    device.files.init()
    assert device.hashes == {}
    let_time_pass(device, 1)
    assert device.hashes == {"cfg": {"hash": md5(b"x"), "write_version": None}}
    assert device.read("cfg") == "x"
