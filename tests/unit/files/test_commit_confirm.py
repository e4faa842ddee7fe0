"""Commit-confirm: the old bytes come back unless the gateway, and the controller, were heard again."""

from dataclasses import replace
from pathlib import Path

import pytest

from teg.domain.errors import Unavailable
from teg.domain.files.trial import FileTrial, TrialOutcome, next_look_s, plan_trial, resumed
from tests.support.remote_files import Device, FailingStore, md5

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


# --- the rule, pure ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now_s", "answered_s", "verdict"),
    [
        (1000.0, 1000.0, TrialOutcome.WAIT),
        (1040.0, 1029.0, TrialOutcome.WAIT),  # answered, but in the first half
        (1040.0, 1030.0, TrialOutcome.CONFIRM),
        (1060.0, 1029.0, TrialOutcome.REVERT),
        (1070.0, 1055.0, TrialOutcome.CONFIRM),  # the answer came late, its request was in time
        (1060.0, float("-inf"), TrialOutcome.REVERT),
    ],
)
def test_an_answer_counts_from_half_time_on(now_s: float, answered_s: float, verdict: TrialOutcome) -> None:
    assert plan_trial(TRIAL, now_s, answered_s, None)[0] is verdict


@pytest.mark.parametrize(
    ("restarted", "known", "before_ms", "now_ms", "verdict"),
    [
        (False, False, None, 500, TrialOutcome.WAIT),
        (True, False, None, 500, TrialOutcome.WAIT),
        (True, True, 500, 500, TrialOutcome.WAIT),
        (True, True, 500, None, TrialOutcome.WAIT),
        (True, True, None, 500, TrialOutcome.CONFIRM),
        (True, True, 500, 400, TrialOutcome.CONFIRM),  # the controller's clock was set back: still a new heartbeat
    ],
)
def test_with_a_restart_a_new_heartbeat_is_needed_too(
    restarted: bool, known: bool, before_ms: int | None, now_ms: int | None, verdict: TrialOutcome
) -> None:
    trial = replace(TRIAL, restart=True, restarted=restarted, heartbeat_known=known, heartbeat_ms=before_ms)
    assert plan_trial(trial, 1040.0, 1035.0, now_ms)[0] is verdict


def test_each_reason_is_said() -> None:
    restart = replace(TRIAL, restart=True)
    assert plan_trial(TRIAL, 1060.0, 0.0, None)[1] == "no answer from the server within 60 s"
    assert plan_trial(restart, 1060.0, 1050.0, None)[1] == "the controller could not be restarted within 60 s"
    restarted = replace(restart, restarted=True, heartbeat_known=True)
    assert plan_trial(restarted, 1060.0, 1050.0, None)[1] == "no heartbeat from the restarted controller within 60 s"
    assert "restarted twice" in plan_trial(replace(TRIAL, boots=2), 1060.0, 0.0, None)[1]


def test_time_starts_again_after_one_reboot_and_ends_at_the_second() -> None:
    assert resumed(TRIAL, 2000.0, "b") == TRIAL
    once = resumed(TRIAL, 5.0, "c")
    assert (once.deadline_s, once.boots) == (65.0, 1)
    twice = resumed(once, 7.0, "d")
    assert (twice.deadline_s, twice.boots) == (7.0, 2)


def test_looks_come_at_half_time_and_then_often() -> None:
    assert next_look_s(TRIAL, 1000.0) == 1030.0
    assert next_look_s(TRIAL, 1030.0) == 1033.0
    assert next_look_s(replace(TRIAL, confirm_s=4, deadline_s=1004), 1002.5) == 1003.5


# --- confirmed ---------------------------------------------------------------------------------------------------


def test_an_answer_after_half_time_confirms(device: Device, path: Path) -> None:
    assert confirmation(device) == "on trial for 60 s"
    device.wait(20)
    assert confirmation(device) == "on trial for 60 s"
    device.wait(20)
    assert confirmation(device) == "confirmed"
    device.server.online = False
    device.wait(3600)
    assert path.read_text() == "new"
    assert device.error("net") == ""
    assert not [key for key in device.state.stored if key.startswith(("files/trial/", "files/previous/"))]


def test_a_link_that_comes_back_in_time_confirms(device: Device, path: Path) -> None:
    device.server.online = False
    device.wait(50)
    device.server.online = True
    device.wait(20)
    assert confirmation(device) == "confirmed"
    assert path.read_text() == "new"


def test_with_a_restart_it_takes_a_heartbeat(device: Device) -> None:
    path = device.define("net", confirm_s=60, restart_controller_on_change=True)
    path.write_text("old")
    device.server.shared["FILE_CONTENT_net"] = "new"
    device.controller.heartbeat_ms = 1000
    device.files.reconcile()
    device.files.restart_controller()
    device.wait(45)
    assert confirmation(device) == "on trial for 60 s"
    device.controller.heartbeat_ms = 2000
    device.wait(5)
    assert confirmation(device) == "confirmed"
    assert path.read_text() == "new"


def test_a_heartbeat_is_compared_with_the_one_at_the_restart_even_if_that_was_locked(device: Device) -> None:
    device.define("net", confirm_s=60, restart_controller_on_change=True).write_text("old")
    device.server.shared["FILE_CONTENT_net"] = "new"
    device.controller.heartbeat_ms = 1000
    device.files.reconcile()
    device.controller.locked = True
    device.files.restart_controller()
    device.wait(35)
    device.controller.locked = False
    device.wait(10)
    assert confirmation(device) == "on trial for 60 s"
    device.controller.heartbeat_ms = 1001
    device.wait(10)
    assert confirmation(device) == "confirmed"


# --- put back ----------------------------------------------------------------------------------------------------


def test_without_an_answer_the_old_bytes_come_back_and_the_reason_is_said(device: Device, path: Path) -> None:
    path.chmod(0o640)
    device.server.online = False
    device.wait(58)
    assert path.read_text() == "new"
    device.wait(5)
    assert path.read_text() == "old"
    said = "put back: no answer from the server within 60 s; change write_version to try this content again"
    assert confirmation(device) == said
    assert device.error("net") == said
    assert device.hashes["net"] == {"hash": md5(b"old"), "write_version": 1}


def test_what_was_put_back_is_not_tried_again_until_the_version_changes(device: Device, path: Path) -> None:
    device.server.online = False
    device.wait(70)
    device.server.online = True
    device.files.reconcile()
    device.restart_process()
    device.files.reconcile()
    device.wait(120)
    assert path.read_text() == "old"
    assert device.error("net").startswith("put back: ")
    device.define("net", write_version=3, confirm_s=60)
    device.files.reconcile()
    assert path.read_text() == "new"
    assert device.error("net") == ""
    device.wait(60)
    assert confirmation(device) == "confirmed"
    assert device.hashes["net"]["write_version"] == 3


def test_another_content_under_the_same_version_is_tried(device: Device, path: Path) -> None:
    device.server.online = False
    device.wait(70)
    device.server.online = True
    device.server.shared["FILE_CONTENT_net"] = "better"
    device.files.reconcile()
    assert path.read_text() == "better"


def test_a_file_that_was_not_there_is_removed_again(device: Device) -> None:
    path = device.define("net", confirm_s=60)
    device.server.shared["FILE_CONTENT_net"] = "new"
    device.files.reconcile()
    device.server.online = False
    device.wait(70)
    assert not path.exists()
    assert device.hashes["net"] == {"hash": "E_NOFILE", "write_version": None}
    device.wait(120)
    assert not path.exists()


def test_without_a_heartbeat_the_old_bytes_come_back_and_the_controller_is_restarted_with_them(device: Device) -> None:
    path = device.define("net", confirm_s=60, restart_controller_on_change=True)
    path.write_text("old")
    device.server.shared["FILE_CONTENT_net"] = "new"
    device.controller.heartbeat_ms = 1000
    device.files.reconcile()
    device.files.restart_controller()
    device.wait(65)
    assert path.read_text() == "old"
    assert "no heartbeat from the restarted controller" in str(confirmation(device))
    assert device.files.restart_due
    device.files.restart_controller()
    assert len(device.controller.restarts) == 2


def test_the_mode_comes_back_with_the_bytes(device: Device) -> None:
    path = device.define("net", confirm_s=60, mode="0666")
    path.write_text("old")
    path.chmod(0o640)
    device.server.shared["FILE_CONTENT_net"] = "new"
    device.files.reconcile()
    assert path.stat().st_mode & 0o777 == 0o666
    device.server.online = False
    device.wait(70)
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("old", 0o640)


def test_a_trial_goes_on_when_its_definition_is_deleted(device: Device, path: Path) -> None:
    del device.server.shared["FILES"]
    device.files.reconcile()
    device.server.online = False
    device.wait(70)
    assert path.read_text() == "old"
    assert str(confirmation(device)).startswith("put back: ")


def test_a_second_content_on_trial_goes_back_to_the_last_confirmed_one(device: Device, path: Path) -> None:
    device.wait(10)
    device.server.shared["FILE_CONTENT_net"] = "newer"
    device.files.reconcile()
    device.server.online = False
    device.wait(55)
    assert path.read_text() == "newer", "its time starts with its own write"
    device.wait(10)
    assert path.read_text() == "old"


def test_going_back_by_hand_ends_the_trial(device: Device, path: Path) -> None:
    device.define("net", write_version=3, confirm_s=60)
    device.server.shared["FILE_CONTENT_net"] = "old"
    device.files.reconcile()
    assert path.read_text() == "old"
    assert confirmation(device) == "replaced"
    device.server.online = False
    device.wait(120)
    assert confirmation(device) == "replaced"
    assert device.error("net") == ""
    assert device.hashes["net"] == {"hash": md5(b"old"), "write_version": 3}


def test_drift_during_a_trial_is_undone_and_does_not_lengthen_it(device: Device, path: Path) -> None:
    device.server.online = False
    device.wait(30)
    path.write_text("edited by hand")
    device.wait(25)
    assert path.read_text() == "new"
    device.wait(10)
    assert path.read_text() == "old"


def test_undoing_drift_later_needs_no_new_confirmation(device: Device, path: Path) -> None:
    device.wait(60)
    assert confirmation(device) == "confirmed"
    device.server.online = False
    path.write_text("edited by hand")
    device.wait(31)
    assert path.read_text() == "new"
    device.wait(600)
    assert path.read_text() == "new"


def test_a_file_too_large_to_be_kept_is_not_replaced_on_trial(device: Device) -> None:
    path = device.define("net", confirm_s=60)
    path.write_bytes(b"x" * ((1 << 20) + 1))
    device.server.shared["FILE_CONTENT_net"] = "new"
    device.files.reconcile()
    assert path.stat().st_size > 1 << 20
    assert "confirm_s" in device.error("net")


def test_putting_back_is_tried_until_it_works(device: Device, path: Path) -> None:
    failing = FailingStore(device.store)
    device.store = failing
    device.restart_process()
    device.files.check()
    device.server.online = False
    failing.problem = Unavailable("read-only file system")
    device.wait(70)
    assert path.read_text() == "new"
    assert device.error("net") == "cannot be put back: read-only file system"
    failing.problem = None
    device.wait(600)
    assert path.read_text() == "old"
    assert device.error("net").startswith("put back: ")


def test_a_failed_write_leaves_the_earlier_trial_and_its_bytes(device: Device, path: Path) -> None:
    """The bytes from before must not be thrown away for a write that then does not happen."""
    failing = FailingStore(device.store)
    device.store = failing
    device.restart_process()
    failing.problem = Unavailable("no space left on device")
    device.define("net", write_version=3)  # without confirm_s: would end the trial
    device.server.shared["FILE_CONTENT_net"] = "newer"
    device.files.reconcile()
    assert path.read_text() == "new"
    failing.problem = None
    del device.server.shared["FILE_CONTENT_net"]
    device.files.reconcile()
    device.server.online = False
    device.wait(70)
    assert path.read_text() == "old"
