"""The answer comes before its effect; reboots once in 300 s, whatever the clock does; and what the journal keeps."""

import threading
from typing import Any

import pytest

from teg.domain.errors import NotConnected, Unavailable
from teg.domain.rpc.dispatcher import Groups
from teg.domain.rpc.journal import CallKey, State
from teg.domain.rpc.methods import Group
from tests.support.rpc import Rig
from tests.support.rpc_crashes import LS, Killed, crash, states

# --- the answer comes first --------------------------------------------------------------------------------


def test_without_an_acknowledged_answer_there_is_no_reboot(rig: Rig) -> None:
    def gone(topic: str, payload: bytes, timeout_s: float = 30.0) -> None:
        rig.clock.advance(10)
        raise NotConnected("gone")

    rig.session.deliver = gone  # type: ignore[method-assign]
    rig.take(0, "reboot")
    assert rig.machine.actions == []
    assert states(rig) == ["undelivered"]


def test_a_call_whose_announcement_was_lost_may_come_again(rig: Rig) -> None:
    rig.session.refusals = [Unavailable("no PUBACK")]
    rig.stopping.set()
    rig.take(0, "reboot")
    rig.stopping.clear()
    rig.session.refusals = []
    assert rig.take(0, "reboot") == "OK - Rebooting"
    assert rig.machine.actions == ["reboot"]


def test_books_that_cannot_be_written_mean_not_done(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise Unavailable("gateway.db: disk full")

    monkeypatch.setattr(rig.rpc_journal, "begin", full)
    for method, params in (("reboot", None), ("run_command", LS)):
        assert rig.take(0, method, params) == (
            f"Error - '{method}' is not done: it cannot be noted now (gateway.db: disk full)"
        )
    assert rig.machine.actions == [] and rig.machine.runs == []


def test_an_effect_that_cannot_be_noted_is_not_done(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise Unavailable("gateway.db: disk full")

    monkeypatch.setattr(rig.rpc_journal, "change", full)
    rig.take(0, "reboot")
    assert rig.machine.actions == []


def test_an_outcome_that_cannot_be_noted_is_answered_all_the_same(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise Unavailable("gateway.db: disk full")

    with monkeypatch.context() as patch:
        patch.setattr(rig.rpc_journal, "change", full)
        assert rig.take(0, "run_command", LS).startswith("OK - ")
    assert rig.take(0, "run_command", LS).startswith("Error - interrupted")
    assert len(rig.machine.runs) == 1


# --- once in 300 s -----------------------------------------------------------------------------------------


def test_reboot_is_done_at_most_once_in_300_s(rig: Rig) -> None:
    rig.take(0, "reboot")
    rig.clock.advance(100)
    assert rig.take(1, "reboot") == "Error - reboot is done at most once in 300 s, try again in 201 s"
    assert rig.take(2, "exit") == "OK - Exiting"
    rig.clock.advance(200)
    assert rig.take(3, "reboot") == "OK - Rebooting"
    assert rig.machine.actions == ["reboot", "exit", "reboot"]


@pytest.mark.parametrize("jump_ms", [-(10**10), 10**10])
def test_a_clock_that_was_set_does_not_shorten_the_300_s(rig: Rig, jump_ms: int) -> None:
    rig.take(0, "reboot")
    rig.clock.advance(10)
    rig.clock.wall_ms += jump_ms
    assert rig.take(1, "reboot").startswith("Error - reboot is done at most once in 300 s")


def test_after_a_reboot_the_300_s_are_counted_from_the_boot(rig: Rig) -> None:
    """The wall clock cannot be trusted then (no battery): only the new boot's own uptime is certain."""
    rig.take(0, "reboot")
    rig.clock.reboot(uptime_s=20)
    rig.clock.wall_ms += 10**10
    rig = rig.again()
    assert rig.take(1, "reboot") == "Error - reboot is done at most once in 300 s, try again in 281 s"
    rig.clock.advance(281)
    assert rig.take(2, "reboot") == "OK - Rebooting"
    rig.database.close()


def test_the_first_reboot_ever_needs_no_uptime(rig: Rig) -> None:
    rig.clock.reboot(uptime_s=5)
    rig = rig.again()
    assert rig.take(0, "reboot") == "OK - Rebooting"
    rig.database.close()


def test_a_clock_that_was_set_does_not_turn_a_redelivery_into_a_new_call(rig: Rig) -> None:
    rig.session.refusals = [NotConnected("gone")]
    rig.take(0, "run_command", LS)
    rig.clock.advance(5)
    rig.clock.wall_ms += 10**11
    rig.take(0, "run_command", LS)
    assert len(rig.machine.runs) == 1


# --- the journal ---------------------------------------------------------------------------------------------


def test_every_call_is_in_the_journal_with_its_secrets_masked(rig: Rig) -> None:
    secret = {"command": ["curl", "-H", "Authorization: Bearer abc123", "--token", "abc123"]}
    rig.take(0, "run_command", secret)
    rig.take(1, "run_command", {"command": 5, "password": "abc123"})
    rig.take(2, "ping", {"apiKey": "abc123", "list": [{"client_secret": "abc123"}]})
    rig.calls.tend()
    entries = rig.rpc_journal.recent(10)
    assert [(entry.key.request_id, entry.key.method) for entry in entries] == [
        (0, "run_command"),
        (1, "run_command"),
        (2, "ping"),
    ]
    assert all("abc123" not in entry.params and "***" in entry.params for entry in entries)
    assert all(entry.duration_ms is not None for entry in entries)


def test_quick_calls_do_not_write_until_they_are_tended(rig: Rig) -> None:
    wal = rig.path.with_name("gateway.db-wal")
    size = wal.stat().st_size
    for n in range(15):
        rig.take(n, "ping")
    assert wal.stat().st_size == size
    assert rig.database.rows("SELECT count(*) FROM rpc_call") == [(0,)]
    rig.calls.tend()
    assert rig.database.rows("SELECT count(*) FROM rpc_call") == [(15,)]


def test_what_cannot_be_written_now_waits(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Any) -> None:
        raise Unavailable("gateway.db: disk full")

    rig.take(0, "ping")
    with monkeypatch.context() as patch:
        patch.setattr(rig.rpc_journal, "append", full)
        with pytest.raises(Unavailable):
            rig.calls.tend()
    rig.calls.tend()
    assert [entry.key.method for entry in rig.rpc_journal.recent(10)] == ["ping"]
    rig.calls.tend()
    assert len(rig.rpc_journal.recent(10)) == 1


def test_a_restart_marks_what_was_begun_without_waiting_for_a_redelivery(rig: Rig) -> None:
    rig.machine.broken = Killed()  # type: ignore[assignment]
    later = crash(rig, 0, "run_command", LS)
    assert states(later) == [State.INTERRUPTED]
    later.database.close()


def test_a_restart_marks_only_what_was_begun(rig: Rig) -> None:
    rig.take(0, "run_command", LS)
    rig.session.refusals = [NotConnected("gone")]
    rig.take(1, "run_command", LS)
    later = rig.again()
    assert states(later) == [State.ACKNOWLEDGED, State.ANSWERED]
    later.database.close()


def test_the_gateway_that_stops_does_not_wait_for_an_acknowledgement(rig: Rig) -> None:
    rig.session.refusals = [Unavailable("no PUBACK")] * 100
    rig.stopping.set()
    rig.take(0, "exit")
    assert rig.machine.actions == []


def test_a_call_that_follows_an_answer_at_once_is_not_busy() -> None:
    """The first one still writes its last lines when the operator already asks again."""
    groups, entered, leave = Groups(), threading.Event(), threading.Event()
    first, second = CallKey(1, "dead_letters", b"a"), CallKey(2, "dead_letters", b"b")

    def hold() -> None:
        with groups.entered(Group.DATA, first):
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    assert entered.wait(10)
    threading.Timer(0.05, leave.set).start()
    with groups.entered(Group.DATA, second) as holder:
        assert holder is None
    thread.join()
