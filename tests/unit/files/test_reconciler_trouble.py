"""Remote files when something is wrong: one file costs only itself, and what could not be done is said."""

import threading
from pathlib import Path

import pytest

from teg.domain.errors import Unavailable
from tests.support.remote_files import Device, FailingStore, md5

# --- what is wrong with one file costs only that file ------------------------------------------------------------


def test_a_bad_definition_is_named_and_the_others_go_on(device: Device) -> None:
    path = device.define("good")
    device.define("bad", restart_controller_on_change=1)
    device.server.shared |= {"FILE_CONTENT_good": "g", "FILE_CONTENT_bad": "b"}
    device.files.reconcile()
    assert path.read_text() == "g"
    assert device.error("bad") == '"restart_controller_on_change" is 1, not true or false'
    assert list(device.hashes) == ["good"]
    device.define("bad")
    device.files.reconcile()
    assert device.error("bad") == ""
    assert (device.root / "bad").read_text() == "b"


def test_a_bad_content_is_named_and_the_file_left_alone(device: Device) -> None:
    path = device.define("cfg", encoding="base64", write_version=1)
    device.server.shared["FILE_CONTENT_cfg"] = "AAEC"
    device.files.reconcile()
    device.define("cfg", encoding="base64", write_version=2)
    device.server.shared["FILE_CONTENT_cfg"] = "not base64!"
    device.files.reconcile()
    assert "not valid base64" in str(device.error("cfg"))
    assert path.read_bytes() == b"\x00\x01\x02"
    assert device.hashes["cfg"] == {"hash": md5(b"\x00\x01\x02"), "write_version": 1}


@pytest.mark.parametrize("files", ["text", 7, ["x"], True])
def test_FILES_of_a_wrong_type_is_named_and_nothing_changes(device: Device, files: object) -> None:
    path = device.define("cfg")
    device.server.shared["FILE_CONTENT_cfg"] = "x"
    device.files.reconcile()
    good = device.server.shared["FILES"]
    device.server.shared["FILES"] = files
    device.files.reconcile()
    assert "not an object" in device.server.client["FILES_ERROR"]
    assert device.hashes["cfg"]["hash"] == md5(b"x")
    path.write_text("edited by hand")
    device.wait(31)
    assert path.read_text() == "x"
    device.server.shared["FILES"] = good
    device.files.reconcile()
    assert device.server.client["FILES_ERROR"] == ""


def test_a_refused_path_is_named_and_the_others_go_on(device: Device, tmp_path: Path) -> None:
    good = device.define("good")
    device.server.shared["FILES"]["evil"] = {"path": str(tmp_path / "outside")}
    device.server.shared |= {"FILE_CONTENT_good": "g", "FILE_CONTENT_evil": "e"}
    device.files.reconcile()
    assert good.read_text() == "g"
    assert "TEG_FILE_ROOTS" in device.error("evil")
    assert not (tmp_path / "outside").exists()
    assert list(device.hashes) == ["good"]


def test_ten_thousand_definitions_neither_block_nor_flood(device: Device) -> None:
    device.server.shared["FILES"] = {f"k{number:05}": {"path": f"$DATA_PATH/{number}"} for number in range(10_000)}
    device.files.reconcile()
    assert 500 < len(device.hashes) < 1000
    assert len([key for key in device.server.client if key.startswith("FILE_ERROR_")]) == 100
    assert all(len(str(report.get("FILE_HASHES"))) < 60_000 for report in device.server.reports)


# --- honest about what could not be done -------------------------------------------------------------------------


def test_a_failed_write_keeps_the_old_file_and_its_version(device: Device, failing: FailingStore) -> None:
    path = device.define("cfg", write_version=1)
    device.server.shared["FILE_CONTENT_cfg"] = "old"
    device.files.reconcile()
    failing.problem = Unavailable("no space left on device")
    device.define("cfg", write_version=2)
    device.server.shared["FILE_CONTENT_cfg"] = "new"
    device.files.reconcile()
    assert path.read_text() == "old"
    assert device.hashes["cfg"] == {"hash": md5(b"old"), "write_version": 1}
    assert device.error("cfg") == "not written: no space left on device"
    failing.problem = None
    device.wait(31)
    assert path.read_text() == "new"
    assert device.hashes["cfg"] == {"hash": md5(b"new"), "write_version": 2}
    assert device.error("cfg") == ""


def test_a_failed_write_is_tried_again_with_growing_pauses(device: Device, failing: FailingStore) -> None:
    device.define("cfg")
    device.server.shared["FILE_CONTENT_cfg"] = "x"
    failing.problem = Unavailable("no space left on device")
    device.files.reconcile()
    device.wait(7200)
    assert 8 <= failing.writes <= 40  # every 30 s would be 240, every second 7,200
    assert device.error("cfg") == "not written: no space left on device"


def test_another_content_is_tried_at_once_after_a_failure(device: Device, failing: FailingStore) -> None:
    path = device.define("cfg")
    device.server.shared["FILE_CONTENT_cfg"] = "x"
    failing.problem = Unavailable("no space left on device")
    device.files.reconcile()
    device.wait(3600)
    failing.problem = None
    device.server.shared["FILE_CONTENT_cfg"] = "smaller"
    device.files.reconcile()
    assert path.read_text() == "smaller"


def test_a_failure_of_a_deleted_definition_is_forgotten(device: Device, failing: FailingStore) -> None:
    device.define("cfg")
    device.server.shared["FILE_CONTENT_cfg"] = "x"
    failing.problem = Unavailable("no space left on device")
    device.files.reconcile()
    del device.server.shared["FILES"]
    device.files.reconcile()
    assert device.error("cfg") == ""
    due = 0
    for _ in range(1000):
        device.clock.seconds += 1
        if device.files.take_due():
            device.files.check()
            due += 1
    assert due <= 1000 / 30 + 1


def test_one_failing_file_does_not_hold_up_the_others(device: Device, tmp_path: Path) -> None:
    (device.root / "folder").mkdir()
    device.define("a", "folder")
    good = device.define("b")
    device.server.shared |= {"FILE_CONTENT_a": "a", "FILE_CONTENT_b": "b"}
    device.files.reconcile()
    assert good.read_text() == "b"
    assert "is a folder" in device.error("a")


# --- pushes are hints --------------------------------------------------------------------------------------------


def test_a_change_during_the_request_is_asked_for_again(device: Device) -> None:
    """The answer is an old snapshot; the push that came meanwhile makes this run ask once more."""
    path = device.define("cfg")
    device.server.shared["FILE_CONTENT_cfg"] = "old"

    def push_arrives() -> None:
        device.server.before_answer = lambda: None
        device.server.shared["FILE_CONTENT_cfg"] = "new"
        thread = threading.Thread(target=device.files.reconcile)
        thread.start()
        thread.join()

    device.server.before_answer = push_arrives
    device.files.reconcile()
    assert path.read_text() == "new"
    assert not device.files.stale


def test_without_an_answer_nothing_changes_and_the_work_stays_due(device: Device) -> None:
    path = device.define("cfg")
    device.server.shared["FILE_CONTENT_cfg"] = "x"
    device.files.reconcile()
    device.server.online = False
    device.server.shared["FILE_CONTENT_cfg"] = "y"
    with pytest.raises(Unavailable):
        device.files.reconcile()
    assert device.files.stale
    assert path.read_text() == "x"
    device.server.online = True
    device.files.reconcile()
    assert path.read_text() == "y"
    assert not device.files.stale


def test_a_link_too_slow_for_many_contents_gets_fewer_at_a_time(device: Device) -> None:
    for number in range(100):
        device.define(f"f{number:03}")
        device.server.shared[f"FILE_CONTENT_f{number:03}"] = "x"
    device.files.reconcile()
    assert [len(request) for request in device.server.requests] == [2, 64, 36]

    def too_slow() -> None:
        if len(device.server.requests[-1]) > 10:
            raise Unavailable("no answer within 10 s")

    device.server.before_answer = too_slow
    device.define("more")
    for _ in range(3):
        with pytest.raises(Unavailable):
            device.files.reconcile()
    device.server.requests.clear()
    device.files.reconcile()
    assert max(len(request) for request in device.server.requests) == 8
    assert "more" in device.hashes


def test_being_offline_is_no_reason_to_ask_for_fewer(device: Device) -> None:
    for number in range(20):
        device.define(f"f{number}")
    device.server.online = False
    for _ in range(5):
        with pytest.raises(Unavailable):
            device.files.reconcile()
    device.server.online = True
    device.files.reconcile()
    assert [len(request) for request in device.server.requests] == [2, 20]


def test_the_lock_is_not_held_while_the_network_is_waited_for(device: Device) -> None:
    """A check and the end of a restart go through although the server takes its time to answer."""
    device.define("cfg")
    done: list[str] = []

    def check() -> None:
        device.files.check()
        done.append("checked")

    def slow() -> None:
        thread = threading.Thread(target=check)
        thread.start()
        thread.join(10)

    device.server.before_answer = slow
    device.files.reconcile()
    assert done
