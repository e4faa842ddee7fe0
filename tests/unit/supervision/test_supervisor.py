"""The supervisor over everything in memory: what it starts, what it tells, what it never does."""

from dataclasses import replace
from pathlib import Path

import pytest

from teg.domain.errors import Refused, Unavailable
from teg.domain.supervision.container_profile import Device, Rights
from teg.domain.supervision.runtime import MountRefused, Observation
from teg.domain.supervision.supervisor import HISTORY_KEY, RETRY_S
from tests.support.controllers import RuntimeInMemory, Supervised

HOUR_S = 3600.0


# --- starting ----------------------------------------------------------------------------------------------------


def test_a_cold_start_runs_the_default_version(around: Supervised) -> None:
    around.look()
    assert around.runtime.calls == ["start v1"]
    assert around.report.current["controller_state"] == "running"
    assert around.report.current["controller_version"] == "v1"
    assert around.report.current["controller_restarts"] == 0


def test_looking_again_changes_and_tells_nothing(around: Supervised) -> None:
    around.look()
    calls, told, puts = list(around.runtime.calls), around.report.attribute_calls, len(around.state.writes)
    around.look_until(HOUR_S)
    assert around.runtime.calls == calls
    assert (around.report.attribute_calls, len(around.state.writes)) == (told, puts)


def test_the_reference_gateways_version_file_is_taken_over(around: Supervised) -> None:
    around.version_file.write_text("v2")
    around.look()
    assert around.runtime.calls == ["start v2"]


@pytest.mark.parametrize("content", ["", "v1; rm -rf /", "a\nb", "UNKNOWN VERSION", "x" * 200, "-h"])
def test_a_version_file_with_something_else_in_it_is_not_believed(around: Supervised, content: str) -> None:
    around.version_file.write_text(content)
    assert around.supervisor.version() == "v1"


def test_a_committed_version_wins_and_is_written_where_scripts_look_for_it(around: Supervised) -> None:
    around.version_file.write_text("v1")
    around.supervisor.commit_version("v2")
    assert around.version_file.read_text() == "v2"
    around.version_file.write_text("v1")  # an old script wrote it: the state is the truth
    around.again()
    around.look()
    assert around.runtime.calls == ["start v2"]


def test_a_version_file_that_cannot_be_written_is_said_after_the_commit(around: Supervised) -> None:
    around.version_file.mkdir()
    with pytest.raises(Unavailable, match="last_launched"):
        around.supervisor.commit_version("v2")
    assert around.supervisor.version() == "v2"


def test_without_any_version_it_says_so(tmp_path: Path) -> None:
    around = Supervised(tmp_path, default_version=None)
    around.look()
    assert around.runtime.calls == []
    assert around.report.current["controller_state"] == "no version"


def test_a_missing_image_is_reported_and_started_once_it_is_there(tmp_path: Path) -> None:
    around = Supervised(tmp_path, runtime=RuntimeInMemory())
    around.look()
    assert around.report.current["controller_state"] == "image missing"
    around.runtime.images["v1"] = "runs"
    around.look_until(60)
    assert around.report.current["controller_state"] == "running"


def test_a_container_of_the_reference_gateway_is_replaced_once(around: Supervised) -> None:
    around.runtime.seen = Observation(
        exists=True, running=True, run_id="r", image="teg-controller-v1:latest", started_ms=1
    )
    around.look()
    around.look_until(HOUR_S)
    assert around.runtime.calls == ["stop", "start v1"]
    assert {"controller_restart_reason": "taken over from the previous gateway"} in around.report.records


def test_a_container_of_the_reference_gateway_is_left_running_while_its_image_is_missing(tmp_path: Path) -> None:
    around = Supervised(tmp_path, runtime=RuntimeInMemory())
    around.runtime.seen = Observation(
        exists=True, running=True, run_id="r", image="teg-controller-v1:latest", started_ms=1
    )
    around.look_until(HOUR_S)
    assert around.runtime.calls == []
    assert around.report.current["controller_state"] == "running"
    assert "no image of v1" in around.report.current["controller_state_reason"]


RIGHTS = Rights(privileged=True, host_network=True, devices=(Device("/dev/i2c-1", "/dev/i2c-1", "rwm"),))
FORMER = Observation(
    exists=True, running=True, run_id="r", image="teg-controller-v1:latest", started_ms=1, rights=RIGHTS
)


def test_the_rights_of_the_reference_gateways_container_are_kept_and_said(
    around: Supervised, caplog: pytest.LogCaptureFixture
) -> None:
    """A controller that was privileged might only crash without: it must not be replaced by one that does."""
    around.runtime.seen = FORMER
    around.look()
    assert around.runtime.loosened == [RIGHTS]
    assert around.runtime.calls == ["stop", "start v1"]
    assert around.runtime.seen.profile == around.runtime.profile() != "profile-1"
    assert "all rights (privileged), the host's network, devices /dev/i2c-1" in caplog.text


def test_kept_rights_hold_for_the_next_life_of_the_gateway(around: Supervised) -> None:
    around.runtime.seen = FORMER
    around.look()
    around.runtime.forget()
    around.again()
    around.look_until(HOUR_S)
    assert around.runtime.loosened == [RIGHTS]
    assert around.runtime.calls == ["stop", "start v1"], "not restarted for it"


def test_an_update_before_the_first_look_keeps_them_too(around: Supervised) -> None:
    around.runtime.seen = FORMER
    with around.supervisor.exclusive("ota"):
        assert around.runtime.loosened == [RIGHTS]


def test_a_container_of_our_own_is_not_loosened(around: Supervised) -> None:
    around.look_until(HOUR_S)
    assert around.runtime.loosened == []


def test_a_refused_mount_is_told_and_leaves_what_runs_alone(around: Supervised) -> None:
    around.look()
    around.runtime.mount_failure = MountRefused("/x lies in /y")
    around.runtime.seen = replace(around.runtime.seen, profile="settings of before")
    around.look_until(HOUR_S)
    assert around.runtime.calls == ["start v1"]
    assert around.report.current["controller_state"] == "running"
    assert around.report.current["controller_state_reason"] == "/x lies in /y"


def test_a_refused_mount_is_no_crash(around: Supervised) -> None:
    around.runtime.mount_failure = MountRefused("/x lies in /y")
    around.look_until(HOUR_S)
    assert around.report.current["controller_state"] == "mount refused"
    assert around.report.records == []
    around.runtime.mount_failure = None
    around.look_until(2 * RETRY_S)
    assert around.report.current["controller_state"] == "running"


# --- asked for ---------------------------------------------------------------------------------------------------


def test_a_restart_that_was_asked_for_is_immediate_and_no_failure(around: Supervised) -> None:
    around.look()
    around.supervisor.restart("RPC")
    assert around.runtime.calls == ["start v1", "stop", "start v1"]
    assert around.report.current["controller_state"] == "running"
    assert around.report.current["controller_last_exit_reason"] == ""
    assert around.state.get(HISTORY_KEY)["failures"] == 0


def test_a_restart_does_not_wait_for_the_back_off(around: Supervised) -> None:
    around.runtime.images["v1"] = "exits"
    around.look_until(600)
    around.runtime.images["v1"] = "runs"
    around.supervisor.restart("RPC")
    assert around.runtime.seen.running


def test_a_restart_never_stops_what_cannot_start_again(around: Supervised) -> None:
    around.look()
    del around.runtime.images["v2"]
    around.supervisor.commit_version("v2")
    with pytest.raises(Unavailable, match="v2"):
        around.supervisor.restart("RPC")
    assert around.runtime.seen.runs("v1")


def test_a_restart_without_any_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no controller version"):
        Supervised(tmp_path, default_version=None).supervisor.restart("RPC")


def test_a_restart_while_the_engine_is_away_says_so(around: Supervised) -> None:
    around.look()
    around.runtime.failure = Unavailable("Connection refused")
    with pytest.raises(Unavailable):
        around.supervisor.restart("RPC")
