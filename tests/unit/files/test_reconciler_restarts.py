"""Remote files and restarts: of the controller because of a file, and of the gateway with what it remembers."""

from pathlib import Path

import pytest

from teg.adapters.confined_files import TEMPORARY_PREFIX
from teg.domain.errors import Refused, Unavailable
from teg.domain.files.apply import MAX_KEPT_BYTES, Disk
from teg.domain.files.ports import FileState
from tests.support.remote_files import Device, FailingStore, md5

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
