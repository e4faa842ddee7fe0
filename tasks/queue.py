"""The queue of this process, and how a task of it is declared: name, lane, priority, expiry, retries."""

from __future__ import annotations

import functools
import logging
import random
from collections.abc import Callable
from typing import Any, ParamSpec

from huey.api import Task, TaskWrapper
from huey.exceptions import RetryTask

from tasks.consumer import GatewayConsumer
from tasks.huey_app import GatewayHuey
from tasks.lanes import Lane
from teg.domain.backoff import Backoff
from teg.domain.errors import NotConnected, Refused, Unavailable

P = ParamSpec("P")
logger = logging.getLogger("gateway.queue")

huey = GatewayHuey()
huey.consumer_class = GatewayConsumer


def task(
    *, name: str, lane: Lane, priority: int = 0, expires_s: int | None = None, retry: Backoff | None = None
) -> Callable[[Callable[P, None]], TaskWrapper[P, None]]:
    """Declare what the queue can run. `name` and the argument types are wire format: never change them lightly.

    `Unavailable` re-schedules the task with `retry`'s growing, jittered delay, without a limit;
    without `retry` it is dropped, for work that a sweep finds again. What fails again and again is said once, and once
    when it works again (`huey.troubles`). `Refused` is logged and dropped.
    """

    def decorate(body: Callable[P, None]) -> TaskWrapper[P, None]:
        @functools.wraps(body)
        def run(*args: Any, **kwargs: Any) -> None:
            current: Task = kwargs.pop("task")
            try:
                body(*args, **kwargs)
                huey.troubles.worked(name)
            except NotConnected as reason:  # the session says how the network is
                logger.debug("%s not done now: %s", name, reason)
                if retry is not None:
                    _try_later(current, retry, reason)
            except Unavailable as reason:
                huey.troubles.failed(name, str(reason))
                if retry is not None:
                    _try_later(current, retry, reason)
            except Refused as reason:
                logger.warning("%s refused: %s", name, reason)

        return huey.task(name=name, lane=lane, priority=priority, expires=expires_s, context=True, retry_policy=retry)(
            run
        )

    return decorate


def _try_later(current: Task, retry: Backoff, reason: Unavailable) -> None:
    """The delay so far travels in the queued message, so back-off goes on after a restart."""
    nominal_s = min(max(current.retry_delay, retry.first_s), retry.cap_s)
    delay_s = nominal_s * random.uniform(0.5, 1.0)  # noqa: S311 - spread, not secrecy
    if huey.triggers.may_retry(current, delay_s):
        current.retry_delay = min(nominal_s * retry.factor, retry.cap_s)
        raise RetryTask(str(reason), delay=delay_s) from reason
