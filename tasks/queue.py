"""The one place that bends Huey: lanes, wire format, wake-up, storage by URL, retries, and a safe consumer.

Huey is at-most-once, and that is enough here: a task carries a trigger or a small plain argument, never the only
copy of anything (docs/queue.md). Why each bend is needed: docs/decisions/0002-huey-in-one-file.md.
"""

from __future__ import annotations

import functools
import logging
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ParamSpec

from huey.api import Huey, Task, TaskWrapper
from huey.exceptions import RetryTask
from huey.storage import BaseStorage, MemoryStorage, PostgresStorage, PriorityRedisStorage

from domain.backoff import Backoff
from domain.errors import Refused, Unavailable
from domain.services import Services
from settings import Settings
from tasks.consumer import GatewayConsumer
from tasks.lanes import WORKERS, Lane, WakeUp
from tasks.storage import PlainSerializer, WatchedFile, open_storage, without_password

P = ParamSpec("P")
logger = logging.getLogger("gateway.queue")

#: Safety net of a waiting worker; rings wake it long before.
IDLE_WAIT_S = 60.0
#: Bound on a graceful stop; the whole exit has to fit into the contract's 30 s.
SHUTDOWN_TIMEOUT_S = 20


class GatewayHuey(Huey):
    """Huey with lanes, opened at start instead of at import, and a typed look-up of the running services."""

    def __init__(self) -> None:
        self.wake_up = WakeUp()
        self.lanes: dict[Lane, BaseStorage] = {}
        self.lifespan: Callable[[Settings], AbstractContextManager[Services]] | None = None
        self.timetable: tuple[Every, ...] = ()
        self._services: Services | None = None
        self._worker = threading.local()
        self._queue_file: WatchedFile | None = None
        self._queued: set[str] = set()
        self._retrying: set[str] = set()
        super().__init__("teg", results=False, serializer=PlainSerializer())

    # --- storage -------------------------------------------------------------------------------------------

    def create_storage(self) -> BaseStorage:
        """Memory until `open` is called: importing does no I/O."""
        self.lanes = {lane: MemoryStorage(f"teg-{lane}") for lane in Lane}
        return self.lanes[Lane.WORK]

    def open(self, url: str) -> None:
        """Use the storage at `sqlite:///path`, `redis://…` or `postgresql://…` from now on.

        Raises:
            Refused: the URL names no storage we know.
            Unavailable: the storage cannot be reached now.
        """
        try:
            self.lanes = {lane: open_storage(url, f"teg-{lane}") for lane in Lane}
            self._queue_file = WatchedFile(url) if url.startswith("sqlite:") else None
        except (Refused, Unavailable):
            raise
        except Exception as error:
            raise Unavailable(f"queue {without_password(url)} cannot be opened: {error}") from error
        self.storage = self.lanes[Lane.WORK]
        self.url = url
        self._queued.clear()
        self._retrying.clear()

    def close(self) -> None:
        for storage in self.lanes.values():
            storage.close()
        self.storage = self.create_storage()
        self._queue_file = None

    def notice_others(self) -> None:
        """Wake workers for what another process enqueued; start a new queue file when ours was deleted."""
        if self._queue_file is None:
            return
        if self._queue_file.replaced():
            logger.warning("the queue file was removed; starting an empty one (unfinished work is found again)")
            self.open(self.url)
            self.wake_up.ring_all()
        elif self._queue_file.written():
            self.wake_up.ring_all()

    # --- tasks ---------------------------------------------------------------------------------------------

    def enqueue(self, task: Task) -> None:
        """Put `task` on its lane. One without arguments is a trigger: while it waits there, more of it add nothing."""
        if task.expires:
            task.resolve_expires(self.utc)
        if self._immediate:
            self.execute(self.deserialize_task(self.serialize_task(task)))
            return
        if _is_trigger(task):
            if task.name in self._queued:
                return
            self._queued.add(task.name)
        try:
            self.lanes[task.lane].enqueue(self.serialize_task(task), task.priority)
        except BaseException:
            self._queued.discard(task.name)
            raise
        self.wake_up.ring(task.lane)

    def started(self, task: Task) -> None:
        """From here on a new trigger of the same name must be queued again: this run may have looked already."""
        self._queued.discard(task.name)

    def may_retry(self, task: Task) -> bool:
        """One waiting retry a trigger is enough: without this each sweep of a long outage would leave one behind."""
        if not _is_trigger(task):
            return True
        if task.name in self._retrying:
            return False
        self._retrying.add(task.name)
        return True

    def enqueue_due(self) -> None:
        for due in self.read_schedule():
            self._retrying.discard(due.name)
            self.enqueue(due)

    def serve(self, lane: Lane) -> None:
        """Make the calling thread a worker of `lane`."""
        self._worker.lane = lane

    def dequeue(self) -> Task | None:
        """Next task of this worker's lane, waiting for one to be enqueued. An unreadable task is dropped, loudly."""
        lane: Lane = getattr(self._worker, "lane", Lane.WORK)
        seen = self.wake_up.rings(lane)
        data = self.lanes[lane].dequeue()
        if data is None and not isinstance(self.lanes[lane], (PriorityRedisStorage, PostgresStorage)):
            self.wake_up.wait(lane, seen, IDLE_WAIT_S)
            data = self.lanes[lane].dequeue()
        return None if data is None else self._readable(data)

    def _readable(self, data: bytes) -> Task | None:
        try:
            return self.deserialize_task(data)
        except Exception as error:  # noqa: BLE001 - whatever another version or a hand wrote there
            logger.error("dropped an unreadable task from the queue: %s", str(error)[:200])
            return None

    def pending_count(self) -> int:
        return sum(storage.queue_size() for storage in self.lanes.values())

    def is_revoked(self, task: Any, timestamp: Any = None, peek: bool = True) -> bool:
        return False  # revocation is not used; reading it would deserialise rows for nothing

    def delete(self, key: str) -> bool:
        return False  # saves one write transaction per task: only revocation keys are ever deleted

    # --- services ------------------------------------------------------------------------------------------

    @property
    def services(self) -> Services:
        """The running gateway's services.

        Raises:
            Unavailable: outside of `serving`, that is before start-up has finished or after the stop.
        """
        if self._services is None:
            raise Unavailable("the gateway's services are not open")
        return self._services

    @contextmanager
    def serving(self, services: Services) -> Iterator[Services]:
        self._services = services
        try:
            yield services
        finally:
            self._services = None

    def create_consumer(self, **options: Any) -> GatewayConsumer:
        """A consumer whose defaults are right for production; `huey_consumer gateway.huey` needs no options."""
        if options.get("worker_type", "thread") != "thread":
            raise SystemExit("only thread workers are supported: the services live in this process")
        options |= {
            "workers": sum(WORKERS.values()),
            "periodic": False,
            "shutdown_timeout": options.get("shutdown_timeout") or SHUTDOWN_TIMEOUT_S,
            "graceful_signal": "TERM",
            "health_check_interval": 1.0,  # a worker killed by SystemExit in a task is back after a second
        }
        return GatewayConsumer(self, **options)


def _is_trigger(task: Task) -> bool:
    return not task.args and not task.kwargs


huey = GatewayHuey()


def task(
    *, name: str, lane: Lane, priority: int = 0, expires_s: int | None = None, retry: Backoff | None = None
) -> Callable[[Callable[P, None]], TaskWrapper[P, None]]:
    """Declare what the queue can run. `name` and the argument types are wire format: never change them lightly.

    `Unavailable` re-schedules the task with `retry`'s growing, jittered delay, without a limit (weather passes);
    without `retry` it is logged and dropped, for work that a sweep finds again. `Refused` is logged and dropped.
    """

    def decorate(body: Callable[P, None]) -> TaskWrapper[P, None]:
        @functools.wraps(body)
        def run(*args: Any, **kwargs: Any) -> None:
            current: Task = kwargs.pop("task")
            huey.started(current)
            try:
                body(*args, **kwargs)
            except Unavailable as reason:
                if retry is None or not huey.may_retry(current):
                    logger.debug("%s not done now: %s", name, reason)
                    return
                raise _later(current, retry, reason) from reason
            except Refused as reason:
                logger.warning("%s refused: %s", name, reason)

        return huey.task(name=name, lane=lane, priority=priority, expires=expires_s, context=True, retry_policy=retry)(
            run
        )

    return decorate


def _later(current: Task, retry: Backoff, reason: Unavailable) -> RetryTask:
    """The delay so far travels in the queued message, so back-off goes on after a restart."""
    nominal_s = min(max(current.retry_delay, retry.first_s), retry.cap_s)
    current.retry_delay = min(nominal_s * retry.factor, retry.cap_s)
    return RetryTask(str(reason), delay=nominal_s * random.uniform(0.5, 1.0))  # noqa: S311


class Every:
    """One line of the timetable: enqueue `task` when `interval_s` have passed since the last time, and at start."""

    def __init__(self, interval_s: float, task: TaskWrapper[[], None]) -> None:
        self.interval_s = interval_s
        self.task = task
        self._due_s = 0.0

    def tick(self, elapsed_s: float) -> None:
        """`elapsed_s` is monotonic since start, so wall-clock jumps are not seen; a long stall counts once."""
        if elapsed_s >= self._due_s:
            self._due_s = elapsed_s + self.interval_s
            self.task()
