"""Calls made on the device: the same permissions, groups, limits and journal as those from the server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from teg.domain.errors import Unavailable
from teg.domain.rpc.journal import State
from tests.support.rpc import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path / "gateway.db")
    yield rig
    rig.database.close()


def test_a_quick_call_is_answered_and_noted_and_nothing_is_sent(rig: Rig) -> None:
    assert rig.calls.call_here("ping", None) == "Pong"
    rig.calls.tend()
    [entry] = rig.rpc_journal.recent(5)
    assert (entry.key.method, entry.key.request_id < 0) == ("ping", True)
    assert rig.session.sent == []


def test_an_effect_is_noted_before_it_happens(rig: Rig) -> None:
    seen: list[str] = []
    rig.machine.at_action = lambda: seen.extend(entry.state for entry in rig.rpc_journal.recent(5))
    assert rig.calls.call_here("run_command", {"command": ["ls"]}).startswith("OK - Command executed")
    assert seen == [State.BEGUN]
    assert [entry.state for entry in rig.rpc_journal.recent(5)] == [State.ACKNOWLEDGED]


def test_what_ends_the_gateway_counts_as_done_before_it_is(rig: Rig) -> None:
    seen: list[str] = []
    rig.machine.at_action = lambda: seen.extend(entry.state for entry in rig.rpc_journal.recent(5))
    assert rig.calls.call_here("exit", None) == "OK - Exiting"
    assert (seen, rig.machine.actions) == ([State.ACTED], ["exit"])


def test_the_outcome_of_a_restart_is_told(rig: Rig) -> None:
    assert rig.calls.call_here("restart_controller", None) == "OK - Restarting Controller"
    rig.controller.broken = Unavailable("the engine does not answer")
    assert rig.calls.call_here("restart_controller", None) == "Error - the engine does not answer"
    assert "then: Error - the engine does not answer" in (rig.rpc_journal.recent(5)[-1].answer or "")


def test_spacing_holds_for_both_sides_together(rig: Rig) -> None:
    rig.calls.call_here("reboot", None)
    rig.clock.advance(5)
    assert "at most once in 300 s" in rig.take(0, "reboot")
    rig.clock.advance(300)
    rig.take(1, "reboot")
    assert "at most once in 300 s" in rig.calls.call_here("reboot", None)
    assert rig.machine.actions == ["reboot", "reboot"]


@pytest.mark.parametrize(
    ("method", "params", "expected"),
    [
        ("no such", None, "Unknown RPC method: 'no such'"),
        ("dead_letters", {"action": "burn"}, "Error - Dead letters: 'action' must be"),
        ("archive_republish_messages", {"start_timestamp_ms": None, "end_timestamp_ms": None}, "must be integers"),
    ],
)
def test_what_is_wrong_is_refused_in_the_same_words(rig: Rig, method: str, params: object, expected: str) -> None:
    assert expected in rig.calls.call_here(method, params)
    assert expected in rig.take(0, method, params)


def test_the_same_call_twice_is_two_calls_also_in_the_same_millisecond(rig: Rig) -> None:
    for _ in range(3):
        rig.calls.call_here("init_files", None)
    assert len(rig.inits) == 3
    assert len({entry.key.request_id for entry in rig.rpc_journal.recent(5)}) == 3


def test_too_many_calls_are_refused(rig: Rig) -> None:
    answers = [rig.calls.call_here("ping", None) for _ in range(30)]
    assert answers[0] == "Pong"
    assert "too many calls" in answers[-1]


def refused(*_: object) -> int:
    raise Unavailable("disk is full")


def test_what_cannot_be_noted_is_not_done(rig: Rig) -> None:
    rig.rpc_journal.begin = refused  # type: ignore[method-assign, assignment]
    assert "it cannot be noted now (disk is full)" in rig.calls.call_here("reboot", None)
    assert rig.machine.actions == []
