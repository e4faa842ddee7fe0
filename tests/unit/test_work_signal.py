"""A ring is either heard by the one who answers, or answered with False: none falls between."""

import threading
import time
from collections.abc import Callable

from teg.domain.concurrency import WorkSignal
from tests.support.running import wait_until

LONG_S = 3600.0


def run(*bodies: Callable[[], None]) -> list[threading.Thread]:
    threads = [threading.Thread(target=body, daemon=True) for body in bodies]
    for thread in threads:
        thread.start()
    return threads


def join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


def test_nobody_is_there() -> None:
    assert WorkSignal().notify() is False


def test_somebody_is_there_and_hears() -> None:
    signal = WorkSignal()
    with signal.draining() as mine:
        assert mine
        assert signal.notify() is True
        assert signal.wait(LONG_S) is True, "a ring before the wait is not lost"
    assert signal.notify() is False


def test_a_notification_wakes_the_one_who_waits() -> None:
    signal, heard = WorkSignal(), []

    def answer() -> None:
        with signal.draining():
            heard.append(signal.wait(LONG_S))

    threads = run(answer)
    wait_until(signal.notify, 20, "somebody answers")
    join(threads)
    assert heard == [True]


def test_after_a_wait_in_vain_nobody_is_there_any_more() -> None:
    """The drainer that gave up has not left its block yet, and still the next ring must start a new one."""
    signal = WorkSignal()
    with signal.draining():
        assert signal.wait(0.0) is False
        assert signal.notify() is False


def test_a_second_one_is_sent_away_and_notification_the_first() -> None:
    signal = WorkSignal()
    with signal.draining() as first:
        with signal.draining() as second:
            assert (first, second) == (True, False)
        assert signal.wait(LONG_S) is True, "whatever the second was called for, the first looks again"
        assert signal.notify() is True, "the visitor's leaving does not end the answering"


def test_a_late_leaver_does_not_end_the_next_ones_answering() -> None:
    signal = WorkSignal()
    first = signal.draining()
    first.__enter__()
    assert signal.wait(0.0) is False
    with signal.draining() as mine:
        assert mine
        first.__exit__(None, None, None)
        assert signal.notify() is True


def test_an_old_notification_is_not_heard_by_the_next_one() -> None:
    """It looks anyway when it begins."""
    signal = WorkSignal()
    signal.notify()
    with signal.draining():
        assert signal.wait(0.0) is False


def test_an_exception_ends_the_answering() -> None:
    signal = WorkSignal()
    try:
        with signal.draining():
            raise KeyError
    except KeyError:
        pass
    assert signal.notify() is False


def test_a_pause_is_cut_short_by_a_notification_and_goes_on_answering() -> None:
    signal = WorkSignal()
    with signal.draining():
        signal.notify()
        signal.pause(LONG_S)
        signal.pause(0.0)
        assert signal.notify() is True


def test_a_burst_of_notification_is_one() -> None:
    signal = WorkSignal()
    with signal.draining():
        for _ in range(100):
            signal.notify()
        assert signal.wait(LONG_S) is True
        assert signal.wait(0.0) is False


def test_many_threads_no_piece_of_work_is_left_behind() -> None:
    """Producers add and ring; when nobody answers they start a drainer, as the tasks do. Nothing may stay undone."""
    signal = WorkSignal()
    todo: list[int] = []
    done: list[int] = []
    guard = threading.Lock()
    drainers: list[threading.Thread] = []
    answering_at_once: list[int] = []
    inside = 0

    def take_all() -> int:
        with guard:
            taken, todo[:] = list(todo), []
        done.extend(taken)
        return len(taken)

    def drain() -> None:
        nonlocal inside
        with signal.draining() as mine:
            if not mine:
                return
            inside += 1
            answering_at_once.append(inside)
            while take_all() or signal.wait(0.0005):
                pass
            inside -= 1

    def produce(first: int) -> None:
        for number in range(first, first + 300):
            with guard:
                todo.append(number)
            if not signal.notify():
                [thread] = run(drain)
                with guard:
                    drainers.append(thread)
            if number % 7 == 0:
                time.sleep(0.001)

    join(run(*(lambda first=first: produce(first) for first in range(0, 1200, 300))))
    join(drainers)
    assert todo == []
    assert sorted(done) == list(range(1200)), "each once: two drainers at a time would double some"
    assert len(drainers) < 1200
