"""At most once, whatever happens: re-delivery, re-used ids, lost answers, crashes."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from teg.domain.errors import NotConnected, Unavailable
from teg.domain.ports import CommandResult
from teg.domain.rpc.dispatcher import LATEST_START_MS
from teg.domain.rpc.journal import ACKNOWLEDGED_STANDS_S, UNACKNOWLEDGED_STANDS_S
from teg.domain.server.wire import RpcRequest
from tests.support.rpc import Rig
from tests.support.rpc_crashes import LS, Killed, crash, killed, states


def test_a_redelivered_command_gets_the_same_answer_and_runs_once(rig: Rig) -> None:
    first = rig.take(0, "run_command", LS)
    rig.machine.result = CommandResult(0, "something else\n", False, False)
    assert rig.take(0, "run_command", LS) == first
    assert len(rig.machine.runs) == 1


def test_the_order_of_keys_in_the_parameters_does_not_make_a_new_call(rig: Rig) -> None:
    rig.take(0, "run_command", {"command": ["ls"], "timeout_s": 5})
    rig.take(0, "run_command", {"timeout_s": 5, "command": ["ls"]})
    assert len(rig.machine.runs) == 1


@pytest.mark.parametrize(
    ("request_id", "method", "params"),
    [(1, "run_command", LS), (0, "run_command", {"command": ["id"]}), (0, "init_files", LS)],
    ids=["other id", "other parameters", "other method"],
)
def test_everything_else_is_a_new_call(rig: Rig, request_id: int, method: str, params: Any) -> None:
    rig.take(0, "run_command", LS)
    rig.take(request_id, method, params)
    assert len(rig.machine.runs) + len(rig.inits) == 2


def test_an_id_used_again_for_another_method_after_a_server_restart_is_a_new_call(rig: Rig) -> None:
    rig.take(0, "reboot")
    assert rig.take(0, "run_command", LS).startswith("OK - Command executed")
    assert rig.take(0, "exit") == "OK - Exiting"
    assert rig.machine.actions == ["reboot", "exit"]


@pytest.mark.parametrize("method", ["run_command", "init_files", "restart_controller"])
def test_the_same_call_long_after_its_acknowledged_answer_is_a_new_one(rig: Rig, method: str) -> None:
    """Ids start at 0 with every restart of the server: id 0 with the same words will come again."""
    rig.take(0, method, LS)
    rig.clock.advance(ACKNOWLEDGED_STANDS_S - 1)
    rig.take(0, method, LS)
    assert len(rig.machine.runs) + len(rig.inits) + len(rig.controller.restarts) == 1
    rig.clock.advance(2)
    rig.take(0, method, LS)
    assert len(rig.machine.runs) + len(rig.inits) + len(rig.controller.restarts) == 2


def test_an_answer_that_was_never_acknowledged_stands_for_a_day(rig: Rig) -> None:
    rig.session.refusals = [Unavailable("no PUBACK")]
    assert rig.take(0, "run_command", LS) is None
    assert states(rig) == ["answered"]
    rig.clock.advance(UNACKNOWLEDGED_STANDS_S - 1)
    assert rig.take(0, "run_command", LS).startswith("OK - ")
    assert len(rig.machine.runs) == 1
    assert states(rig) == ["acknowledged"]


def test_an_acknowledged_repetition_frees_the_key_again(rig: Rig) -> None:
    rig.session.refusals = [NotConnected("gone")]
    rig.take(0, "run_command", LS)
    rig.take(0, "run_command", LS)
    rig.clock.advance(ACKNOWLEDGED_STANDS_S + 1)
    rig.take(0, "run_command", LS)
    assert len(rig.machine.runs) == 2


def test_a_redelivery_during_the_run_is_left_to_the_run(rig: Rig) -> None:
    """One answer: the run's own. The second delivery must neither run nor be answered 'busy'."""
    inside, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        inside.set()
        assert go_on.wait(10)

    rig.machine.at_action = wait
    request = RpcRequest(0, "run_command", LS)
    deadline_ms = rig.clock.now_ms() + LATEST_START_MS
    runner = threading.Thread(target=rig.calls.run, args=(request, deadline_ms))
    runner.start()
    assert inside.wait(10)
    rig.calls.run(request, deadline_ms)
    assert rig.session.sent == []
    rig.calls.run(RpcRequest(1, "run_command", LS), deadline_ms)
    assert rig.session.sent[0][1] == ("Error - busy: run_command is going on ('run_command'), try again later")
    assert rig.take(2, "ping") == "Pong"
    assert rig.take(3, "archive_stats") == {"rows": 10, "rows_per_day": {"2026-01-01": 10}}
    go_on.set()
    runner.join(10)
    assert len(rig.machine.runs) == 1
    assert rig.session.sent[-1][1].startswith("OK - Command executed")


def test_an_answered_call_is_repeated_while_another_one_of_its_group_runs(rig: Rig) -> None:
    first = rig.take(0, "run_command", LS)
    deadline_ms = rig.clock.now_ms() + LATEST_START_MS
    rig.machine.at_action = lambda: rig.calls.run(RpcRequest(0, "run_command", LS), deadline_ms)
    rig.calls.run(RpcRequest(1, "run_command", {"command": ["id"]}), deadline_ms)
    assert rig.session.sent[1] == ("v1/devices/me/rpc/response/0", first)
    assert len(rig.machine.runs) == 2


@pytest.mark.parametrize("method", ["run_command"])
def test_a_call_interrupted_by_a_crash_says_so_and_never_runs_again(rig: Rig, method: str) -> None:
    rig.machine.broken = Killed()  # type: ignore[assignment]
    later = crash(rig, 0, method, LS)
    later.machine.broken = None
    for _ in range(2):
        assert later.take(0, method, LS) == (
            "Error - interrupted: it is not known how far 'run_command' came, the gateway stopped or could not note"
            " its end; it is not done again"
        )
    assert len(later.machine.runs) == 1
    later.database.close()


def test_a_crash_before_the_intent_leaves_nothing_behind(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rig.rpc_journal, "begin", lambda *_: killed())
    later = crash(rig, 0, "run_command", LS)
    assert later.take(0, "run_command", LS).startswith("OK - ")
    assert len(later.machine.runs) == 1
    later.database.close()


def test_a_crash_after_the_outcome_repeats_the_answer(rig: Rig) -> None:
    rig.session.refusals = [Killed()]  # type: ignore[list-item]
    later = crash(rig, 0, "run_command", LS)
    assert later.take(0, "run_command", LS).startswith("OK - Command executed")
    assert len(later.machine.runs) == 1
    later.database.close()


def points(rig: Rig) -> dict[str, Callable[[], None]]:
    """Where a reboot can be cut off: before and after each step."""

    def at(name: str, before: bool) -> Callable[[], None]:
        def cut() -> None:
            real: Any = getattr(rig.rpc_journal, name)

            def cutting(*arguments: Any) -> Any:
                if not before:
                    real(*arguments)
                raise Killed

            setattr(rig.rpc_journal, name, cutting)

        return cut

    def deliver() -> None:
        rig.session.on_deliver = killed

    def undelivered() -> None:
        rig.session.refusals = [Killed()]  # type: ignore[list-item]

    def action() -> None:
        rig.machine.at_action = killed

    return {
        "before the intent": at("begin", True),
        "after the intent": at("begin", False),
        "before the answer": undelivered,
        "after the acknowledged answer": deliver,
        "before the effect is noted": at("change", True),
        "after the effect is noted": at("change", False),
        "before the effect": action,
    }


@pytest.mark.parametrize("point", points(Rig.__new__(Rig)))
@pytest.mark.parametrize("method", ["reboot", "shutdown", "exit"])
def test_power_acts_at_most_once_whatever_cuts_it_off(rig: Rig, method: str, point: str) -> None:
    points(rig)[point]()
    later = crash(rig, 0, method, None)
    later.session.on_deliver = later.machine.at_action = lambda: None
    answers = [later.take(0, method) for _ in range(3)]
    assert len(rig.machine.actions) == (1 if point == "before the intent" else 0)
    assert len(set(answers)) == 1, answers
    if point != "before the intent":
        noted = point in ("after the effect is noted", "before the effect")
        assert (answers[0].startswith("OK - ")) == noted
    later.database.close()


def test_a_reboot_is_done_before_its_process_ends_and_not_again(rig: Rig) -> None:
    assert rig.take(0, "reboot") == "OK - Rebooting"
    later = rig.again()
    later.clock.reboot()
    assert later.take(0, "reboot") == "OK - Rebooting"
    assert later.machine.actions == ["reboot"]
    later.database.close()
