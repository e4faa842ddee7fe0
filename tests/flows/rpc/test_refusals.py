"""Calls that are refused, dropped, cut or answered late, from the listener's task to the answer."""

import datetime
from pathlib import Path

import pytest

from tasks.lanes import Lane
from tasks.queue import huey
from tasks.rpc import handle_rpc, run_rpc
from teg.domain.errors import NotConnected, Refused, Unavailable
from teg.domain.ports import CommandResult
from teg.domain.rpc.command_allowlist import parse_command_list
from tests.support.rpc import Rig


def test_run_command_is_off_by_default_and_says_how_to_enable_it(tmp_path: Path) -> None:
    with Rig(tmp_path / "gateway.db", run_command="off").serving() as rig:
        answer = rig.call(3, "run_command", {"command": ["ls"]})
    assert answer.startswith("Error - Running command failed: run_command is switched off on this gateway")
    assert "TEG_RPC_RUN_COMMAND" in answer
    assert rig.machine.runs == []


def test_an_allow_list_knows_only_its_names(tmp_path: Path) -> None:
    allowed = parse_command_list(
        """
        [commands.disk_free]
        argv = ["df", "-h", "{path}"]
        timeout_s = 10
        parameters.path = { type = "choice", choices = ["/", "/data"] }
        """
    )
    with Rig(tmp_path / "gateway.db", run_command=allowed).serving() as rig:
        assert rig.call(1, "run_command", {"name": "disk_free", "args": {"path": "/data"}}).startswith("OK - ")
        assert rig.call(2, "run_command", {"command": ["ls"]}) == (
            "Error - Running command failed: missing 'name' in params: only the named commands of the allow-list"
            " can be run"
        )
        assert rig.call(3, "run_command", {"name": "rm", "args": {}}) == (
            "Error - Running command failed: no command 'rm' in the allow-list (there are: disk_free)"
        )
        assert rig.call(4, "run_command", {"name": "disk_free", "args": {"path": "/etc"}}) == (
            "Error - Running command failed: 'path' must be one of /, /data"
        )
    assert rig.machine.runs == [(["df", "-h", "/data"], 10)]


def test_disabled_methods_are_refused(tmp_path: Path) -> None:
    with Rig(tmp_path / "gateway.db", disabled=frozenset({"reboot", "ping"})).serving() as rig:
        assert rig.call(1, "reboot") == "Error - RPC method 'reboot' is disabled on this gateway (TEG_RPC_DISABLED)"
        assert rig.call(2, "ping").startswith("Error - RPC method 'ping' is disabled")
    assert rig.machine.actions == []


def test_power_that_the_host_does_not_offer_is_refused_before_the_answer(rig: Rig) -> None:
    rig.machine.problem = "there is neither 'reboot' nor 'systemctl'"
    assert rig.call(1, "reboot") == ("Error - reboot is not possible here: there is neither 'reboot' nor 'systemctl'")


def test_what_fails_after_its_answer_is_in_the_journal(rig: Rig) -> None:
    rig.controller.broken = Refused("no controller version is known yet")
    assert rig.call(1, "restart_controller") == "OK - Restarting Controller"
    (line,) = rig.call(2, "get_logs", {"source": "calls"})
    assert "then: Error - no controller version is known yet" in line


def test_more_than_five_a_second_are_answered_but_not_done(rig: Rig) -> None:
    answers = [rig.call(n, "ping") for n in range(1_000)]
    assert answers.count("Pong") == 20
    assert answers.count("Error - too many calls: more than 5 a second, try again later") == 980
    rig.clock.advance(1)
    assert [rig.call(n, "ping") for n in range(6)].count("Pong") == 5


def test_the_limit_holds_for_what_takes_time_too(rig: Rig) -> None:
    answers = [rig.call(n, "run_command", {"command": ["ls"]}) for n in range(30)]
    assert len(rig.machine.runs) == 20
    assert answers[20:] == ["Error - too many calls: more than 5 a second, try again later"] * 10


def test_a_repeated_answer_does_not_count(rig: Rig) -> None:
    """A flood of re-deliveries must not turn the answer of a call into 'too many calls'."""
    answers = {rig.call(0, "run_command", {"command": ["ls"]}) for _ in range(100)}
    assert len(answers) == 1 and len(rig.machine.runs) == 1


def test_what_could_not_be_read_is_answered_too(rig: Rig) -> None:
    assert rig.refuse(9, "RPC request without a method name") == "Error - RPC request without a method name"
    rig.refuse(10, "x" * 100_000)
    assert rig.session.sizes[-1] <= 60_000


def test_without_a_session_nothing_is_lost_but_the_answer(rig: Rig) -> None:
    rig.session.connected = False
    assert rig.call(3, "ping") is None
    rig.session.connected = True
    assert rig.call(3, "ping") == "Pong"


def test_a_call_that_waited_too_long_for_its_lane_is_not_done(rig: Rig) -> None:
    run_rpc(3, "run_command", {"command": ["ls"]}, rig.clock.now_ms() - 1)
    assert rig.session.sent[-1][1] == ("Error - expired: 'run_command' could not be begun within 10 s, it is not done")
    run_rpc(4, "run_command", {"command": ["ls"]}, rig.clock.now_ms() + 3_600_000)
    assert rig.session.sent[-1][1].startswith("Error - expired")
    assert rig.machine.runs == []


@pytest.mark.parametrize(("late_s", "answers"), [(9, ["Pong"]), (11, [])])
def test_a_call_that_waited_too_long_in_the_queue_is_not_done(tmp_path: Path, late_s: int, answers: list[str]) -> None:
    rig = Rig(tmp_path / "gateway.db")
    with rig.serving():
        huey.immediate = False
        handle_rpc(3, "ping", None)
        data = huey.lanes[Lane.RPC].dequeue()
        assert data is not None
        now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
        huey.execute(huey.deserialize_task(data), timestamp=now + datetime.timedelta(seconds=late_s))
    assert [message for _, message in rig.session.sent] == answers


def test_long_answers_are_cut_below_the_limit(rig: Rig) -> None:
    rig.machine.result = CommandResult(0, "head" + "\x00" * 65_536 + "tail", False, True)
    answer = rig.call(3, "run_command", {"command": ["cat", "/dev/zero"]})
    assert rig.session.sizes[-1] <= 60_000
    assert "characters left out: the answer was too long" in answer
    assert answer.startswith("OK - Command executed") and answer.endswith("tail")


def test_a_lost_connection_before_the_announcement_arrives_is_tried_again(rig: Rig) -> None:
    rig.session.refusals = [NotConnected("gone"), Unavailable("no PUBACK")]
    assert rig.call(3, "reboot") == "OK - Rebooting"
    assert rig.machine.actions == ["reboot"]
