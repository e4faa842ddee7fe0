"""Retries: one a trigger, longer and longer waits up to a cap, over restarts too; what is refused ends."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.huey_app import GatewayHuey
from tasks.queue import huey as the_huey
from teg.domain.errors import Refused, Unavailable
from tests.support.queue_file import RETRY, FakeTime, depth, run_next, unavailable


def test_a_long_outage_leaves_one_retry_a_trigger(
    queue: GatewayHuey, declare: Callable[..., Any], clock: FakeTime
) -> None:
    """Two hours without a network, second by second: every sweep and every retry fails; one task waits."""
    runs: list[float] = []

    def fail() -> None:
        runs.append(clock.elapsed_s())
        raise Unavailable("no network")

    look = declare("look", fail, retry=RETRY)
    deepest = 0
    for _second in range(2 * 3600):
        clock.advance(1)
        if clock.now.second == 0:
            look()
        queue.enqueue_due()
        while run_next():
            pass
        deepest = max(deepest, depth())
    assert deepest == 1
    assert len(runs) > 2 * 60, "it went on trying"


def waits(count: int, clock: FakeTime, reopen: Callable[[], None] = lambda: None) -> list[float]:
    """Let `count` retries become due; returns how long each waited."""
    found: list[float] = []
    while len(found) < count:
        run_next()
        [later] = the_huey.scheduled()
        assert later.eta is not None
        found.append((later.eta - clock.now).total_seconds())
        reopen()
        clock.now = later.eta
        the_huey.enqueue_due()
    return found


def assert_grows_to(found: list[float], nominal: list[float]) -> None:
    assert all(0.5 * expected <= wait <= expected for wait, expected in zip(found, nominal, strict=True)), found


NOMINAL = [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]


def test_retries_wait_longer_up_to_a_cap(queue: GatewayHuey, declare: Callable[..., Any], clock: FakeTime) -> None:
    declare("look", unavailable, retry=RETRY)()
    found = waits(10, clock)
    assert_grows_to(found, [float(value) for value in NOMINAL])
    assert len(set(found[6:])) > 1, "jitter: a fleet must not march in step"


def test_back_off_goes_on_after_a_restart(
    queue: GatewayHuey, declare: Callable[..., Any], clock: FakeTime, path: Path
) -> None:
    declare("look", unavailable, retry=RETRY)()

    def restart() -> None:
        the_huey.close()
        the_huey.open(f"sqlite://{path}")

    assert_grows_to(waits(10, clock, restart), [float(value) for value in NOMINAL])


def test_a_fresh_trigger_after_success_starts_with_the_short_wait(
    queue: GatewayHuey, declare: Callable[..., Any], clock: FakeTime
) -> None:
    failing = [True]

    def body() -> None:
        if failing[0]:
            raise Unavailable("no network")

    look = declare("look", body, retry=RETRY)
    look()
    waits(5, clock)
    failing[0] = False
    run_next()
    assert depth() == 0
    failing[0] = True
    look()
    assert_grows_to(waits(1, clock), [1.0])


def test_tasks_with_arguments_retry_each_on_its_own(
    queue: GatewayHuey, declare: Callable[..., Any], clock: FakeTime
) -> None:
    work = declare("work", unavailable, retry=RETRY)
    for number in range(3):
        work(number)
        run_next()
    assert queue.scheduled_count() == 3
    assert sorted(later.args for later in queue.scheduled()) == [(0,), (1,), (2,)]


def test_refused_and_unavailable_without_retry_end_the_task(
    queue: GatewayHuey, declare: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> None:
        raise Refused("no such method")

    declare("refusing", refuse, retry=RETRY)()
    declare("looking", unavailable)()
    run_next()
    run_next()
    assert depth() == 0
    assert "refusing refused: no such method" in caplog.text
