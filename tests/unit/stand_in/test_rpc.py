"""The pending calls of a device, with time in the test's hands."""

import threading
from collections.abc import Callable

import pytest

from teg.simulator.thingsboard.change_signal import ChangeSignal
from teg.simulator.thingsboard.reordering import Reversal
from teg.simulator.thingsboard.rpc import PendingCalls, RpcCall, RpcHandle, RpcOutcome


class Clock:
    """Runs nothing by itself."""

    def __init__(self) -> None:
        self.timers: list[Timer] = []

    def __call__(self, delay_s: float, action: Callable[[], None]) -> "Timer":
        self.timers.append(Timer(delay_s, action))
        return self.timers[-1]

    def pass_all(self) -> None:
        for timer in self.timers:
            timer.fire()


class Timer:
    def __init__(self, delay_s: float, action: Callable[[], None]) -> None:
        self.delay_s = delay_s
        self._action: Callable[[], None] | None = action

    def cancel(self) -> None:
        self._action = None

    def fire(self) -> None:
        action, self._action = self._action, None
        if action is not None:
            action()


class Session:
    def __init__(self) -> None:
        self.sent: list[int] = []

    def send_rpc(self, call: RpcCall) -> None:
        self.sent.append(call.id)


def call(*, one_way: bool = False, persistent: bool = False, old_api: bool = False) -> RpcCall:
    return RpcCall("ping", None, 10.0, one_way, persistent, old_api)


def test_an_empty_answer_is_no_error() -> None:
    calls, session = PendingCalls(Clock()), Session()
    calls.subscribed(session)
    asked, broken = call(), call()
    calls.submit(asked)
    calls.submit(broken)
    calls.responded(asked.id, b"")
    calls.responded(broken.id, b"no json")
    assert (asked.outcome, broken.outcome) == (RpcOutcome(200, None), RpcOutcome(406))
    assert calls.pending == []


def test_calls_wait_for_a_session_and_leave_in_order() -> None:
    calls, session = PendingCalls(Clock()), Session()
    first, second = call(), call()
    calls.submit(first)
    calls.submit(second)
    assert not first.sent
    calls.subscribed(session)
    calls.submit(call())
    assert session.sent == [0, 1, 2]
    calls.unsubscribed(Session())
    calls.submit(call())
    assert session.sent == [0, 1, 2, 3]
    calls.unsubscribed(session)
    calls.submit(call())
    assert session.sent == [0, 1, 2, 3]
    assert len(calls.pending) == 5


def test_answer_ends_a_call_once_and_later_ones_are_stale() -> None:
    clock, session = Clock(), Session()
    calls = PendingCalls(clock)
    calls.subscribed(session)
    one = call()
    calls.submit(one)
    calls.responded(0, b'{"message": "Pong"}')
    calls.responded(0, b'{"message": "Pong"}')
    clock.pass_all()
    assert one.outcome == RpcOutcome(200, {"message": "Pong"})
    assert calls.stale_responses == [(0, b'{"message": "Pong"}')]
    assert calls.pending == []


@pytest.mark.parametrize(
    ("connected", "old_api", "status"), [(True, True, 408), (False, True, 409), (True, False, 504)]
)
def test_expiry(connected: bool, old_api: bool, status: int) -> None:
    clock = Clock()
    calls = PendingCalls(clock)
    if connected:
        calls.subscribed(Session())
    one = call(old_api=old_api)
    calls.submit(one)
    assert clock.timers[0].delay_s == 10.0
    clock.pass_all()
    assert RpcHandle(one).wait(0) == RpcOutcome(status)
    calls.delivered(one.id)
    calls.not_delivered(one.id)


def test_one_way_persistent_call_stays_pending_until_the_puback() -> None:
    calls, session = PendingCalls(Clock()), Session()
    one = call(one_way=True, persistent=True)
    calls.submit(one)
    assert one.outcome is not None
    assert set(one.outcome.response) == {"rpcId"}
    calls.subscribed(session)
    calls.subscribed(session)
    assert session.sent == [0, 0]
    calls.delivered(0)
    calls.subscribed(session)
    assert session.sent == [0, 0]
    assert one.states == ["QUEUED", "SENT", "DELIVERED"]


def test_retries_end_in_failed() -> None:
    calls, session = PendingCalls(Clock()), Session()
    one = RpcCall("ping", None, 10.0, persistent=True, max_retries=1)
    calls.submit(one)
    for _ in range(3):
        calls.subscribed(session)
        calls.not_delivered(0)
    assert one.states == ["QUEUED", "SENT", "TIMEOUT", "SENT", "TIMEOUT", "FAILED"]
    assert session.sent == [0, 0]


def test_lost_puback_does_not_count_once_delivered_or_for_plain_calls() -> None:
    calls = PendingCalls(Clock())
    calls.subscribed(Session())
    delivered, plain = call(persistent=True), call()
    calls.submit(delivered)
    calls.submit(plain)
    calls.delivered(0)
    calls.not_delivered(0)
    calls.not_delivered(1)
    assert delivered.state == "DELIVERED"
    assert calls.pending == [delivered, plain]


def test_pending_handle_says_so() -> None:
    handle = RpcHandle(call())
    assert not handle.done
    with pytest.raises(AssertionError, match="still pending"):
        handle.wait(0)


def test_reversal_by_number_and_by_time() -> None:
    clock, sent = Clock(), list[int]()
    reversal = Reversal(clock)
    for number in range(3):
        reversal.add(lambda n=number: sent.append(n), 2, 0.5)  # type: ignore[misc]
    assert sent == [1, 0]
    assert reversal.holding
    clock.pass_all()
    assert sent == [1, 0, 2]
    assert not reversal.holding


def test_a_change_wakes_a_waiter_and_gives_up_in_time() -> None:
    changes, done = ChangeSignal(), threading.Event()
    waiter = threading.Thread(target=lambda: changes.wait_until(done.is_set, 30))
    waiter.start()
    done.set()
    changes.notify()
    waiter.join(30)
    assert not waiter.is_alive()
    assert not changes.wait_until(lambda: False, 0.01)
