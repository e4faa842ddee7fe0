"""Remote files as the server and the operator see them: what is written, mirrored, reported and undone."""

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from teg.adapters.confined_files import TEMPORARY_PREFIX
from teg.domain.errors import Refused, Unavailable
from teg.domain.files.apply import MAX_KEPT_BYTES, Disk
from teg.domain.files.ports import FileState
from tests.support.remote_files import Device, FailingStore, md5


@pytest.fixture
def device(tmp_path: Path) -> Device:
    root = tmp_path / "controller"
    root.mkdir()
    return Device(root)


# --- what the server wants is on disk afterwards -----------------------------------------------------------------


def test_a_text_file_is_written_hashed_and_read_back(device: Device) -> None:
    path = device.define("cfg", "config.txt", write_version=3)
    device.server.shared["FILE_CONTENT_cfg"] = "speed=3\n"
    device.files.reconcile()
    assert path.read_bytes() == b"speed=3\n"
    assert device.hashes == {"cfg": {"hash": md5(b"speed=3\n"), "write_version": 3}}
    assert device.read("cfg") == "speed=3\n"
    assert device.error("cfg") == ""


def test_json_is_spelled_as_the_reference_spells_it(device: Device) -> None:
    path = device.define("cfg", encoding="json")
    device.server.shared["FILE_CONTENT_cfg"] = {"b": 1, "a": ["ü", None]}
    device.files.reconcile()
    assert path.read_bytes() == b'{"b": 1, "a": ["\\u00fc", null]}'
    assert device.read("cfg") == {"b": 1, "a": ["ü", None]}


@pytest.mark.parametrize(("value", "spelled"), [([1, 2], b"[1, 2]"), (7, b"7"), ("x", b'"x"'), (False, b"false")])
def test_json_may_be_an_array_or_a_scalar(device: Device, value: object, spelled: bytes) -> None:
    path = device.define("cfg", encoding="json")
    device.server.shared["FILE_CONTENT_cfg"] = value
    device.files.reconcile()
    assert path.read_bytes() == spelled


@pytest.mark.parametrize(("value", "written"), [(42, b"42"), (1.5, b"1.5"), (True, b"true")])
def test_a_number_where_text_was_meant_is_written_as_its_digits(device: Device, value: object, written: bytes) -> None:
    path = device.define("cfg")
    device.server.shared["FILE_CONTENT_cfg"] = value
    device.files.reconcile()
    assert path.read_bytes() == written


def test_base64_is_decoded_and_read_back_as_base64(device: Device) -> None:
    path = device.define("key", encoding="base64")
    device.server.shared["FILE_CONTENT_key"] = "AAEC\nAw=="
    device.files.reconcile()
    assert path.read_bytes() == b"\x00\x01\x02\x03"
    assert device.read("key") == "AAECAw=="


def test_an_empty_content_makes_an_empty_file(device: Device) -> None:
    path = device.define("cfg")
    device.server.shared["FILE_CONTENT_cfg"] = ""
    device.files.reconcile()
    assert path.read_bytes() == b""
    assert device.read("cfg") == "E_EMPTYFILE"


def test_several_contents_are_applied_at_once_and_folders_are_made(device: Device) -> None:
    paths = [device.define(f"f{number}", f"a/b/{number}.txt") for number in range(20)]
    device.server.shared |= {f"FILE_CONTENT_f{number}": f"text {number}" for number in range(20)}
    device.files.reconcile()
    assert [path.read_text() for path in paths] == [f"text {number}" for number in range(20)]
    assert len(device.hashes) == 20


def test_contents_that_came_before_the_definition_are_applied_with_it(device: Device) -> None:
    device.server.shared["FILE_CONTENT_cfg"] = "early"
    device.files.reconcile()
    assert list(device.root.iterdir()) == []
    path = device.define("cfg")
    device.files.reconcile()
    assert path.read_text() == "early"


def test_a_content_changed_while_the_device_was_away_is_applied_without_a_new_version(device: Device) -> None:
    path = device.define("cfg", write_version=1)
    device.server.shared["FILE_CONTENT_cfg"] = "old"
    device.files.reconcile()
    device.server.shared["FILE_CONTENT_cfg"] = "new"
    device.restart_process()
    device.files.reconcile()
    assert path.read_text() == "new"


def test_applying_twice_writes_and_reports_once(device: Device) -> None:
    path = device.define("cfg")
    device.server.shared["FILE_CONTENT_cfg"] = "x"
    device.files.reconcile()
    before, reports, writes = path.stat(), len(device.server.reports), len(device.state.writes)
    device.wait(300)
    device.files.reconcile()
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert len(device.server.reports) == reports
    assert len(device.state.writes) == writes


def test_a_new_version_of_the_same_content_is_reported_without_a_write(device: Device) -> None:
    path = device.define("cfg", write_version=1)
    device.server.shared["FILE_CONTENT_cfg"] = "x"
    device.files.reconcile()
    inode = path.stat().st_ino
    device.define("cfg", write_version=2)
    device.files.reconcile()
    assert device.hashes["cfg"]["write_version"] == 2
    assert path.stat().st_ino == inode


def test_a_file_that_may_not_be_created_waits_until_it_exists(device: Device) -> None:
    path = device.define("cfg", create_if_not_exist=False, write_version=4)
    device.server.shared["FILE_CONTENT_cfg"] = "wanted"
    device.files.reconcile()
    assert not path.exists()
    assert device.hashes == {"cfg": {"hash": "E_NOFILE", "write_version": None}}
    assert device.read("cfg") == "E_NOFILE"
    path.write_text("made by the controller")
    device.wait(31)
    assert path.read_text() == "wanted"
    assert device.hashes == {"cfg": {"hash": md5(b"wanted"), "write_version": 4}}


# --- the server wins; mirrored files follow the disk -------------------------------------------------------------


def test_local_drift_is_undone_within_thirty_seconds(device: Device) -> None:
    path = device.define("cfg")
    device.server.shared["FILE_CONTENT_cfg"] = "wanted"
    device.files.reconcile()
    path.write_text("edited by hand")
    device.wait(31)
    assert path.read_text() == "wanted"
    path.unlink()
    device.wait(31)
    assert path.read_text() == "wanted"


def test_drift_is_undone_without_a_server_and_in_a_new_process(device: Device) -> None:
    path = device.define("cfg")
    device.server.shared["FILE_CONTENT_cfg"] = "wanted"
    device.files.reconcile()
    device.server.online = False
    path.write_text("edited by hand")
    device.reboot()
    device.wait(31)
    assert path.read_text() == "wanted"


def test_drift_within_the_clock_tick_of_the_last_look_is_found(device: Device) -> None:
    path = device.define("cfg")
    device.server.shared["FILE_CONTENT_cfg"] = "one"
    device.files.reconcile()
    before = path.stat()
    path.write_text("two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    device.wait(62)
    assert path.read_text() == "one"


def test_unchanged_files_are_not_read_again(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    device.define("cfg")
    device.server.shared["FILE_CONTENT_cfg"] = "x"
    device.files.reconcile()
    device.wait(62)
    opened: list[str] = []
    real = os.open

    def noted(name: str, *arguments: Any, **options: Any) -> int:
        opened.append(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(os, "open", noted)
    device.wait(120)
    assert opened, "the folder is walked"
    assert "cfg" not in opened


def test_a_changed_mode_is_set_again(device: Device) -> None:
    path = device.define("cfg", mode="0600")
    device.server.shared["FILE_CONTENT_cfg"] = "x"
    device.files.reconcile()
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o666)
    device.wait(31)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_without_content_is_mirrored_and_never_written(device: Device) -> None:
    path = device.define("log", "state.txt")
    device.files.reconcile()
    assert device.read("log") == "E_NOFILE"
    assert device.hashes == {"log": {"hash": "E_NOFILE", "write_version": None}}
    path.write_text("one")
    device.wait(31)
    assert device.read("log") == "one"
    path.write_text("two")
    device.wait(31)
    assert device.read("log") == "two"
    assert device.hashes["log"]["hash"] == md5(b"two")
    assert path.read_text() == "two"


def test_a_mirrored_json_file_is_sent_as_text(device: Device) -> None:
    device.define("cfg", encoding="json").write_text('{"a": 1}')
    device.files.reconcile()
    assert device.read("cfg") == '{"a": 1}'


@pytest.mark.parametrize("size", [60_000, 70_000, (1 << 20) + 1])
def test_a_file_that_fits_no_message_is_mirrored_as_size_and_hash(device: Device, size: int) -> None:
    data = b"x" * size
    device.define("big").write_bytes(data)
    device.files.reconcile()
    assert device.read("big") == f"E_TOOLARGE size={size} md5={md5(data)}"
    assert device.hashes["big"]["hash"] == md5(data)


def test_what_is_sent_fits_the_payload_limit(device: Device) -> None:
    device.define("big", encoding="text").write_bytes(b'"' * 40_000)  # every character is escaped: 80,000 bytes
    device.define("ok").write_bytes(b"x" * 59_000)
    device.files.reconcile()
    assert device.read("big").startswith("E_TOOLARGE")
    assert device.read("ok") == "x" * 59_000


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"a\x00b"])
def test_bytes_that_are_no_text_are_not_sent_as_text(device: Device, data: bytes) -> None:
    device.define("bin").write_bytes(data)
    device.files.reconcile()
    assert device.read("bin") == f"E_NOTTEXT size={len(data)} md5={md5(data)}"


# --- deleted attributes and definitions --------------------------------------------------------------------------


def test_a_deleted_definition_is_cleared_and_the_file_stays(device: Device) -> None:
    path = device.define("cfg")
    device.define("other").write_text("o")
    device.server.shared["FILE_CONTENT_cfg"] = "x"
    device.files.reconcile()
    del device.server.shared["FILES"]["cfg"]
    device.files.reconcile()
    assert device.read("cfg") == ""
    assert list(device.hashes) == ["other"]
    assert path.read_text() == "x"
    path.write_text("free now")
    device.wait(31)
    assert path.read_text() == "free now"


def test_deleting_FILES_clears_every_file(device: Device) -> None:
    device.define("cfg")
    device.server.shared["FILE_CONTENT_cfg"] = "x"
    device.files.reconcile()
    del device.server.shared["FILES"]
    device.files.reconcile()
    assert (device.hashes, device.read("cfg")) == ({}, "")


def test_a_deleted_content_makes_the_file_a_mirrored_one(device: Device) -> None:
    path = device.define("cfg")
    device.server.shared["FILE_CONTENT_cfg"] = "x"
    device.files.reconcile()
    del device.server.shared["FILE_CONTENT_cfg"]
    device.files.reconcile()
    path.write_text("edited by hand")
    device.wait(31)
    assert path.read_text() == "edited by hand"
    assert device.read("cfg") == "edited by hand"


def test_leftovers_in_FILE_HASHES_of_the_server_are_cleared(device: Device) -> None:
    device.server.client["FILE_HASHES"] = {"ghost": {"hash": "e" * 32, "write_version": 1}}
    device.files.reconcile()
    assert (device.hashes, device.read("ghost")) == ({}, "")


@pytest.mark.parametrize("hashes", [None, "text", 7, ["x"], {"cfg": "odd"}])
def test_missing_or_odd_FILE_HASHES_on_the_server_are_replaced(device: Device, hashes: object) -> None:
    if hashes is not None:
        device.server.client["FILE_HASHES"] = hashes
    device.define("cfg").write_text("x")
    device.files.reconcile()
    assert device.hashes == {"cfg": {"hash": md5(b"x"), "write_version": None}}
    assert device.read("cfg") == "x"


def test_init_tells_everything_anew(device: Device) -> None:
    device.define("cfg").write_text("x")
    device.files.reconcile()
    device.server.client.clear()
    device.files.init()
    assert device.hashes == {}
    assert device.files.stale
    assert device.files.take_due()
    device.files.check()
    assert device.hashes == {"cfg": {"hash": md5(b"x"), "write_version": None}}
    assert device.read("cfg") == "x"


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


@pytest.fixture
def failing(device: Device) -> FailingStore:
    store = FailingStore(device.store)
    device.store = store
    device.restart_process()
    return store


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


# --- restarts ----------------------------------------------------------------------------------------------------


def test_the_controller_is_restarted_once_for_several_files(device: Device) -> None:
    for key in ("a", "b"):
        device.define(key, restart_controller_on_change=True)
        device.server.shared[f"FILE_CONTENT_{key}"] = key
    device.define("c")
    device.server.shared["FILE_CONTENT_c"] = "c"
    device.files.reconcile()
    assert device.files.restart_due
    device.files.restart_controller()
    device.files.restart_controller()
    assert device.controller.restarts == ["remote file changed: a, b"]
    assert not device.files.restart_due


def test_a_restart_survives_the_process(device: Device) -> None:
    device.define("a", restart_controller_on_change=True)
    device.server.shared["FILE_CONTENT_a"] = "a"
    device.files.reconcile()
    device.restart_process()
    device.files.check()
    assert device.files.restart_due
    device.files.restart_controller()
    device.restart_process()
    device.files.check()
    assert not device.files.restart_due


def test_a_restart_that_is_not_possible_now_stays_due_and_is_said(device: Device) -> None:
    device.define("a", restart_controller_on_change=True)
    device.server.shared["FILE_CONTENT_a"] = "a"
    device.files.reconcile()
    device.controller.problem = Unavailable("Docker does not answer")
    with pytest.raises(Unavailable):
        device.files.restart_controller()
    device.wait(31)
    assert device.error("a") == "written; the controller is not restarted yet: Docker does not answer"
    device.controller.problem = None
    device.files.restart_controller()
    device.wait(31)
    assert device.error("a") == ""


def test_without_a_controller_the_file_is_written_and_the_rest_is_said(device: Device) -> None:
    path = device.define("a", restart_controller_on_change=True)
    device.server.shared["FILE_CONTENT_a"] = "a"
    device.controller.problem = Refused("there is no controller to restart")
    device.files.reconcile()
    device.files.restart_controller()
    device.wait(31)
    assert path.read_text() == "a"
    assert "there is no controller to restart" in device.error("a")
    assert not device.files.restart_due


def test_a_failed_write_asks_for_no_restart(device: Device, failing: FailingStore) -> None:
    device.define("a", restart_controller_on_change=True)
    device.server.shared["FILE_CONTENT_a"] = "a"
    failing.problem = Unavailable("no space left on device")
    device.files.reconcile()
    assert not device.files.restart_due
    device.restart_process()
    device.files.check()
    assert not device.files.restart_due


def test_a_new_version_of_the_same_content_restarts_nothing(device: Device) -> None:
    device.define("a", restart_controller_on_change=True, write_version=1)
    device.server.shared["FILE_CONTENT_a"] = "a"
    device.files.reconcile()
    device.files.restart_controller()
    device.define("a", restart_controller_on_change=True, write_version=2)
    device.files.reconcile()
    assert not device.files.restart_due


def test_a_controller_that_rewrites_its_file_is_not_restarted_for_ever(device: Device) -> None:
    path = device.define("a", restart_controller_on_change=True)
    device.server.shared["FILE_CONTENT_a"] = "a"
    device.files.reconcile()
    for _ in range(100):
        if device.files.restart_due:
            device.files.restart_controller()
            path.write_text("as the controller likes it")
        device.wait(31)
    assert 2 <= len(device.controller.restarts) <= 3
    assert path.read_text() == "a"


def test_a_file_that_changes_during_the_restart_gets_another_one(device: Device) -> None:
    device.define("a", restart_controller_on_change=True)
    device.server.shared["FILE_CONTENT_a"] = "a"
    device.files.reconcile()

    def restart(reason: str) -> None:
        device.controller.restarts.append(reason)
        if len(device.controller.restarts) == 1:
            device.server.shared["FILE_CONTENT_a"] = "b"
            device.files.reconcile()

    device.controller.restart = restart  # type: ignore[method-assign]
    device.files.restart_controller()
    assert device.files.restart_due
    device.files.restart_controller()
    assert len(device.controller.restarts) == 2
    assert not device.files.restart_due


# --- what is remembered ------------------------------------------------------------------------------------------


def test_a_deleted_content_stays_deleted_in_a_new_process_without_a_server(device: Device) -> None:
    path = device.define("cfg")
    device.server.shared["FILE_CONTENT_cfg"] = "x"
    device.files.reconcile()
    del device.server.shared["FILE_CONTENT_cfg"]
    device.files.reconcile()
    device.server.online = False
    device.restart_process()
    path.write_text("edited by hand")
    device.wait(31)
    assert path.read_text() == "edited by hand"


def test_what_an_interrupted_write_left_is_removed_at_the_start(device: Device) -> None:
    path = device.define("cfg", "sub/cfg")
    device.server.shared["FILE_CONTENT_cfg"] = "x"
    device.files.reconcile()
    leftover = path.parent / f"{TEMPORARY_PREFIX}0123.tmp"
    leftover.write_text("half")
    del device.server.shared["FILES"]
    device.restart_process()
    device.files.reconcile()
    assert not leftover.exists()


def test_hashes_that_somebody_else_changed_are_told_anew(device: Device) -> None:
    device.define("cfg").write_text("x")
    device.files.reconcile()
    device.server.client |= {"FILE_HASHES": {"cfg": {"hash": "0" * 32, "write_version": 9}}, "FILE_READ_cfg": "odd"}
    device.clock.seconds += 10
    device.files.reconcile()
    assert device.hashes == {"cfg": {"hash": md5(b"x"), "write_version": None}}
    assert device.read("cfg") == "x"


def test_a_report_on_its_way_is_not_sent_twice(device: Device) -> None:
    device.define("cfg").write_text("x")
    device.files.reconcile()
    device.server.client.pop("FILE_HASHES")  # not there yet: our report is still on its way
    reports = len(device.server.reports)
    device.files.reconcile()
    assert len(device.server.reports) == reports


def test_all_contents_together_are_bounded(device: Device) -> None:
    for number in range(17):
        device.define(f"f{number:02}")
        device.server.shared[f"FILE_CONTENT_f{number:02}"] = "x" * (1 << 20)
    device.files.reconcile()
    assert "all contents together" in device.error("f16")
    assert (device.root / "f15").stat().st_size == 1 << 20
    assert not (device.root / "f16").exists()


def test_bytes_that_are_not_there_after_the_write_are_not_claimed(device: Device, failing: FailingStore) -> None:
    """Somebody writes in the same moment: what is told is what was read back."""
    device.define("cfg", write_version=1)
    device.server.shared["FILE_CONTENT_cfg"] = "wanted"
    real = failing.write

    def write_and_lose(path: str, content: bytes, mode: int | None = None) -> None:
        real(path, content, mode)
        Path(path).write_text("somebody else's")

    failing.write = write_and_lose  # type: ignore[method-assign]
    device.files.reconcile()
    assert device.hashes == {"cfg": {"hash": md5(b"somebody else's"), "write_version": None}}
    assert device.error("cfg") == "not written: the file was changed while it was written"


def test_a_device_without_files_has_nothing_to_check(device: Device) -> None:
    device.files.reconcile()
    device.clock.seconds += 100
    assert not device.files.take_due()
    device.define("cfg")
    device.files.reconcile()
    device.clock.seconds += 100
    assert device.files.take_due()


def test_large_contents_are_not_kept_in_memory(device: Device) -> None:
    """Six hundred mirrored files of 1 MiB must not fill the memory of a small device."""
    device.define("small").write_bytes(b"x" * MAX_KEPT_BYTES)
    device.define("large").write_bytes(b"x" * (MAX_KEPT_BYTES + 1))
    disk = Disk(device.store)
    contents = [(disk.read(str(device.root / name)) or FileState("", 0, 0)).content for name in ("small", "large")]
    assert [content is None for content in contents] == [False, True]
    device.files.reconcile()
    assert device.read("large").startswith("E_TOOLARGE")
    device.define("large", confirm_s=60)
    device.server.shared["FILE_CONTENT_large"] = "new"
    device.files.reconcile()
    device.server.online = False
    device.wait(70)
    assert (device.root / "large").read_bytes() == b"x" * (MAX_KEPT_BYTES + 1), "a trial keeps all of it, on disk"


def test_a_huge_key_does_not_become_a_message_that_cuts_the_session(device: Device) -> None:
    device.server.shared["FILES"] = {"k" * 70_000: {"path": "$DATA_PATH/x"}}
    device.server.client["FILE_HASHES"] = {"h" * 70_000: {"hash": "0" * 32}}
    device.files.reconcile()
    assert "200 characters" in device.error("k" * 200)
    assert max(len(key) for report in device.server.reports for key in report) < 255
