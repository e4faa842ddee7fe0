"""A ring is either heard by the one who answers, or answered with False: none falls between."""

import threading
import time
from collections.abc import Callable

from teg.domain.concurrency import Bell
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
    assert Bell().ring() is False


def test_somebody_is_there_and_hears() -> None:
    bell = Bell()
    with bell.answering() as mine:
        assert mine
        assert bell.ring() is True
        assert bell.wait(LONG_S) is True, "a ring before the wait is not lost"
    assert bell.ring() is False


def test_a_ring_wakes_the_one_who_waits() -> None:
    bell, heard = Bell(), []

    def answer() -> None:
        with bell.answering():
            heard.append(bell.wait(LONG_S))

    threads = run(answer)
    wait_until(bell.ring, 20, "somebody answers")
    join(threads)
    assert heard == [True]


def test_after_a_wait_in_vain_nobody_is_there_any_more() -> None:
    """The drainer that gave up has not left its block yet, and still the next ring must start a new one."""
    bell = Bell()
    with bell.answering():
        assert bell.wait(0.0) is False
        assert bell.ring() is False


def test_a_second_one_is_sent_away_and_rings_the_first() -> None:
    bell = Bell()
    with bell.answering() as first:
        with bell.answering() as second:
            assert (first, second) == (True, False)
        assert bell.wait(LONG_S) is True, "whatever the second was called for, the first looks again"
        assert bell.ring() is True, "the visitor's leaving does not end the answering"


def test_a_late_leaver_does_not_end_the_next_ones_answering() -> None:
    bell = Bell()
    first = bell.answering()
    first.__enter__()
    assert bell.wait(0.0) is False
    with bell.answering() as mine:
        assert mine
        first.__exit__(None, None, None)
        assert bell.ring() is True


def test_an_old_ring_is_not_heard_by_the_next_one() -> None:
    """It looks anyway when it begins."""
    bell = Bell()
    bell.ring()
    with bell.answering():
        assert bell.wait(0.0) is False


def test_an_exception_ends_the_answering() -> None:
    bell = Bell()
    try:
        with bell.answering():
            raise KeyError
    except KeyError:
        pass
    assert bell.ring() is False


def test_a_pause_is_cut_short_by_a_ring_and_goes_on_answering() -> None:
    bell = Bell()
    with bell.answering():
        bell.ring()
        bell.pause(LONG_S)
        bell.pause(0.0)
        assert bell.ring() is True


def test_a_burst_of_rings_is_one() -> None:
    bell = Bell()
    with bell.answering():
        for _ in range(100):
            bell.ring()
        assert bell.wait(LONG_S) is True
        assert bell.wait(0.0) is False


def test_many_threads_no_piece_of_work_is_left_behind() -> None:
    """Producers add and ring; when nobody answers they start a drainer, as the tasks do. Nothing may stay undone."""
    bell = Bell()
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
        with bell.answering() as mine:
            if not mine:
                return
            inside += 1
            answering_at_once.append(inside)
            while take_all() or bell.wait(0.0005):
                pass
            inside -= 1

    def produce(first: int) -> None:
        for number in range(first, first + 300):
            with guard:
                todo.append(number)
            if not bell.ring():
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
