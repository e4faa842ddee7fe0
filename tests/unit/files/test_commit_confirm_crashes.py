"""A change on trial over crashes and reboots of the gateway, and around its edges."""

from pathlib import Path

import pytest

from teg.domain.errors import Unavailable
from teg.domain.files.trial import FileTrial
from tests.support.remote_files import Device, FailingStore

TRIAL = FileTrial(
    key="net", path="/r/net", digest="d", md5="m", confirm_s=60, deadline_s=1060.0, boot_id="b", written=True
)


class PowerCutError(Exception):
    pass


@pytest.fixture
def path(device: Device) -> Path:
    """A file with confirmed content, and a new one on trial for a minute."""
    path = device.define("net", write_version=1, confirm_s=60)
    device.server.shared["FILE_CONTENT_net"] = "old"
    path.write_text("old")
    device.files.reconcile()
    device.define("net", write_version=2, confirm_s=60)
    device.server.shared["FILE_CONTENT_net"] = "new"
    device.files.reconcile()
    assert path.read_text() == "new"
    return path


def confirmation(device: Device) -> object:
    return device.server.client.get("FILE_CONFIRM_net")


# --- crashes and reboots -----------------------------------------------------------------------------------------


def test_a_killed_process_keeps_the_deadline(device: Device, path: Path) -> None:
    device.wait(20)
    device.server.online = False
    device.restart_process()
    device.wait(38)
    assert path.read_text() == "new"
    device.restart_process()
    device.wait(5)
    assert path.read_text() == "old"


def test_after_one_reboot_the_time_starts_again_after_two_it_is_over(device: Device, path: Path) -> None:
    device.server.online = False
    device.wait(50)
    device.reboot()
    device.wait(55)
    assert path.read_text() == "new"
    device.reboot()
    device.wait(2)
    assert path.read_text() == "old"
    assert "restarted twice" in str(confirmation(device))


def test_one_reboot_and_an_answer_confirm(device: Device, path: Path) -> None:
    device.reboot()
    device.wait(60)
    assert confirmation(device) == "confirmed"
    assert path.read_text() == "new"


def test_a_trial_whose_write_never_happened_is_dropped(device: Device) -> None:
    """Power was cut between the intent and the write: nothing was tried, so nothing is refused."""
    path = device.define("net", confirm_s=60)
    path.write_text("old")
    device.files.reconcile()
    device.server.shared["FILE_CONTENT_net"] = "new"

    def cut(*_: object) -> None:
        raise PowerCutError

    store, device.store = device.store, FailingStore(device.store)
    device.store.write = cut  # type: ignore[method-assign,assignment]
    device.restart_process()
    with pytest.raises(PowerCutError):
        device.files.reconcile()
    assert "files/trial/net" in device.state.stored
    device.store = store
    device.server.online = False
    device.clock.seconds += 3600
    device.restart_process()
    device.files.check()
    assert path.read_text() == "new", "the content that was last heard is wanted, and tried with its full time"
    device.server.online = True
    device.wait(60)
    assert confirmation(device) == "confirmed"


def test_a_crash_while_putting_back_is_done_again(device: Device, path: Path) -> None:
    def cut(*_: object) -> None:
        raise PowerCutError

    device.server.online = False
    store = device.store
    after_write = FailingStore(store)

    def write_then_cut(path: str, content: bytes, mode: int | None = None) -> None:
        store.write(path, content, mode)
        raise PowerCutError

    after_write.write = write_then_cut  # type: ignore[method-assign]
    device.store = after_write
    device.restart_process()
    device.clock.seconds += 61
    with pytest.raises(PowerCutError):
        device.files.check()
    device.store = store
    device.restart_process()
    device.files.check()
    assert path.read_text() == "old"
    assert device.error("net").startswith("put back: no answer")


def test_missing_old_bytes_never_remove_the_file(device: Device, path: Path) -> None:
    device.state.delete("files/previous/net")
    device.server.online = False
    device.wait(70)
    assert path.read_text() == "new"
    assert "missing" in device.error("net")


def test_a_trial_of_another_version_of_the_gateway_is_understood(device: Device, path: Path) -> None:
    row = device.state.get("files/trial/net")
    device.state.put("files/trial/net", row | {"added_later": True})
    device.restart_process()
    device.wait(60)
    assert confirmation(device) == "confirmed"


# --- around the edges --------------------------------------------------------------------------------------------


def test_a_write_that_failed_leaves_no_trial(device: Device) -> None:
    failing = FailingStore(device.store)
    failing.problem = Unavailable("no space left on device")
    device.store = failing
    device.restart_process()
    path = device.define("net", confirm_s=60)
    path.write_text("old")
    device.server.shared["FILE_CONTENT_net"] = "new"
    device.files.reconcile()
    assert device.state.keys("files/trial/") == []
    device.server.online = False
    device.wait(120)
    assert device.error("net") == "not written: no space left on device"
    assert confirmation(device) is None


def test_a_newer_content_without_confirm_s_ends_the_trial(device: Device, path: Path) -> None:
    device.define("net", write_version=3)
    device.server.shared["FILE_CONTENT_net"] = "newer"
    device.files.reconcile()
    assert confirmation(device) == "replaced"
    device.server.online = False
    device.wait(120)
    assert path.read_text() == "newer"
    assert confirmation(device) == "replaced"


def test_the_old_bytes_put_there_by_hand_are_no_end_of_the_trial(device: Device, path: Path) -> None:
    """After a restart of the gateway, too: the trial was written, so this is drift."""
    path.write_text("old")
    device.server.online = False
    device.restart_process()
    device.files.check()
    assert path.read_text() == "new"
    device.wait(65)
    assert path.read_text() == "old"
    assert str(confirmation(device)).startswith("put back: ")


def test_the_restart_after_putting_back_survives_the_process(device: Device) -> None:
    device.define("net", confirm_s=60, restart_controller_on_change=True).write_text("old")
    device.server.shared["FILE_CONTENT_net"] = "new"
    device.files.reconcile()
    device.files.restart_controller()
    device.wait(65)
    device.restart_process()
    device.files.check()
    device.files.restart_controller()
    assert len(device.controller.restarts) == 2
