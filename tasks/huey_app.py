"""The Huey subclass: lanes, wake-up, a queue that may fail, the timetable, and a typed look-up of the services.

Huey is at-most-once, and that is enough here: a task carries a trigger or a small plain argument, never the only
copy of anything (docs/queue.md). Why each bend is needed: docs/decisions/0002-huey-in-few-files.md.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, TypeVar

from huey.api import Huey, Task, TaskWrapper
from huey.consumer import Consumer
from huey.exceptions import HueyException
from huey.storage import BaseStorage, MemoryStorage

from tasks.in_memory import KeptTasks, Triggers, Troubles, WakeUp, is_trigger
from tasks.lanes import MAY_WAIT_S, WORKERS, Lane
from tasks.services import Services
from tasks.storage import Damaged, PlainSerializer, WatchedFile, move_aside, open_storage, sqlite_path, storage_errors
from tasks.timetable import Every
from teg.domain.errors import Refused, Unavailable
from teg.domain.liveness import Liveness
from teg.settings import Settings

T = TypeVar("T")
logger = logging.getLogger("gateway.queue")

#: Safety net of a waiting worker; notifications wake it long before.
IDLE_WAIT_S = 60.0
#: Pause of a worker whose queue cannot be read.
DOWN_WAIT_S = 1.0
#: Turns of the scheduler. Tasks of other processes: the kernel (inotify) tells of a write, whose commit is seen a
#: moment later; where it does not tell, we look.
TICK_S, SETTLING_S, POLL_S = 1.0, 0.05, 0.5
#: Between two tries at a queue file that could not be opened.
OPEN_AGAIN_S = 5.0
#: Bound on a graceful stop; the whole exit has to fit into the contract's 30 s.
SHUTDOWN_TIMEOUT_S = 20


class GatewayHuey(Huey):
    """Huey with lanes, opened at start instead of at import."""

    consumer_class: type[Consumer] = Consumer

    def __init__(self) -> None:
        self.wake_up = WakeUp()
        self.lanes: dict[Lane, BaseStorage] = {}
        self.lifespan: Callable[[Settings], AbstractContextManager[Services]] | None = None
        self.timetable: tuple[Every, ...] = ()
        self.liveness = Liveness()
        self._services: Services | None = None
        self.troubles = Troubles(logger.warning)
        self._worker = threading.local()
        self._url, self._name = "", "teg"
        self._queue_file: WatchedFile | None = None
        self._away = False  #: the queue could not be opened yet
        self._open_due_s = 0.0
        self._damaged = False
        self.tended = False  #: a scheduler of this process queues later what cannot be queued now
        self._telling = threading.Lock()
        super().__init__("teg", results=False, serializer=PlainSerializer())

    # --- storage -------------------------------------------------------------------------------------------

    def create_storage(self) -> BaseStorage:
        """Memory until `open` is called: importing does no I/O."""
        self.lanes = {lane: MemoryStorage(f"teg-{lane}") for lane in Lane}
        self.triggers = Triggers()
        self._kept = KeptTasks()
        self._trouble: Unavailable | None = None
        self._outages_ended = 0
        return self.lanes[Lane.WORK]

    def open(self, url: str, name: str = "teg") -> None:
        """Use the storage at `sqlite:///path`, `redis://…` or `postgresql://…` from now on.

        `name` keeps our tasks apart from those of other gateways on the same server.

        Raises:
            Refused: the URL names no storage we can use.
            Unavailable: the storage cannot be reached now.
        """
        try:
            lanes = {lane: open_storage(url, f"{name}-{lane}") for lane in Lane}
        except Damaged as damage:
            self._move_aside(url, damage)
            lanes = {lane: open_storage(url, f"{name}-{lane}") for lane in Lane}
        path = sqlite_path(url)
        with storage_errors(url):
            queue_file = WatchedFile(path) if path else None
        self._close_storages()
        self.lanes, self.storage, self._queue_file, self._url = lanes, lanes[Lane.WORK], queue_file, url
        self._name = name
        self.triggers = Triggers()
        self._damaged = self._away = False

    def open_when_possible(self, url: str, name: str) -> None:
        """As `open`; but a start waits neither for a queue file nor for a server: tasks run from memory until then."""
        try:
            self.open(url, name)
        except Unavailable as reason:
            self._url, self._name, self._away = url, name, True
            self.storage_failed(reason)

    def _open_again(self) -> None:
        now_s = time.monotonic()
        if now_s < self._open_due_s:
            return
        self._open_due_s = now_s + OPEN_AGAIN_S
        try:
            self.open(self._url, self._name)
        except Unavailable as reason:
            self.storage_failed(reason)

    def close(self) -> None:
        self._close_storages()
        self._queue_file, self._url, self.tended, self._away = None, "", False, False
        self.storage = self.create_storage()

    def _close_storages(self) -> None:
        for storage in self.lanes.values():
            storage.close()
        if self._queue_file is not None:
            self._queue_file.close()

    def _move_aside(self, url: str, damage: Unavailable) -> None:
        if path := sqlite_path(url):
            with storage_errors(url):
                logger.error("%s; kept as %s, starting an empty queue (work is found again)", damage, move_aside(path))

    def next_look(self) -> tuple[float, *tuple[int, ...]]:
        """(seconds until the scheduler's next turn, descriptors that bring it sooner): tasks of other processes."""
        file = self._queue_file
        if file is None:
            return (TICK_S,)
        if file.settling:
            return (SETTLING_S,)
        return (POLL_S,) if file.told_by is None else (TICK_S, file.told_by)

    def tend_storage(self) -> None:
        """Every turn of the scheduler: a new queue file for a removed or damaged one; tasks of other processes noticed.

        Raises:
            Unavailable: the queue cannot be read or opened now.
        """
        if self._away:
            self._open_again()
        if self._queue_file is None:
            return
        with storage_errors(self._url):
            if self._queue_file.replaced():
                logger.warning("the queue file was removed; starting an empty one (unfinished work is found again)")
            elif self._damaged:
                self._move_aside(self._url, self._trouble or Damaged("the queue file is damaged"))
            else:
                if self._queue_file.written():
                    self.wake_up.notify_all()
                return
        self.open(self._url, self._name)
        self._look_again()

    def _use(self, call: Callable[[], T]) -> T:
        """Every use of the storage. A call that broke in an outage that is over says nothing of now: it is tried again.

        Raises:
            Unavailable: the storage cannot do it now.
        """
        while True:
            outages = self._outages_ended
            try:
                return self._try(call)
            except Unavailable:
                if outages == self._outages_ended:
                    raise

    def _try(self, call: Callable[[], T]) -> T:
        """A server gets a second chance: a connection that died unnoticed is no outage."""
        if self._url and self._queue_file is None:
            with suppress(Unavailable), storage_errors(self._url):
                return call()
        with storage_errors(self._url):
            return call()

    def storage_failed(self, reason: Unavailable) -> None:
        """Say it once; until the queue is back, what should be queued runs from memory."""
        self._damaged = self._damaged or isinstance(reason, Damaged)
        with self._telling:  # every worker meets the outage at the same moment
            news, self._trouble = self._trouble is None, reason
        if news:
            logger.error("%s; trying again until it is back", reason)

    def _write_probe(self) -> None:
        """A queue that can be read is not back yet: a full disk reads well."""
        self.storage.put_data("written", b"")
        self.storage.delete_data("written")

    def _storage_works(self) -> None:
        self._outages_ended += 1
        self._trouble = None
        logger.warning("the queue is back")
        self._look_again()

    def _look_again(self) -> None:
        """What was queued may be lost: the timetable starts anew, and its sweep finds unfinished work."""
        for entry in self.timetable:
            entry.make_due()
        self.wake_up.notify_all()

    # --- tasks ---------------------------------------------------------------------------------------------

    def enqueue(self, task: Task) -> None:
        """Put `task` on its lane. One without arguments is a trigger: while it waits there, more of it add nothing.

        While the queue cannot be written the gateway runs the task from memory. Callers need not care, and do not
        wait: once trouble is known, only the scheduler tries.

        Raises:
            Refused: an argument that cannot go through the queue.
            Unavailable: too many tasks are kept in memory already; or this is another process, which keeps none.
        """
        if task.expires and not task.expires_resolved:
            task.resolve_expires(self.utc)
        if self._immediate:
            self.execute(self.deserialize_task(self.serialize_task(task)))
            return
        data = self.serialize_task(task)
        if self._trouble is not None and self.tended:
            self._keep(task, self._trouble)
            return
        try:
            self._use(lambda: self._put(task, data))
        except Unavailable as reason:
            self._keep(task, reason)

    def trigger(self, task: TaskWrapper[[], None]) -> None:
        """Run a trigger of ours from memory: what a timetable or a sweep asks for comes again, and needs no disk.

        In a process without a scheduler it goes the way of every task.
        """
        wanted: Task = task.s()
        if self._immediate or not self.tended:
            self.enqueue(wanted)
            return
        if wanted.expires:
            wanted.resolve_expires(self.utc)
        self._kept.add(wanted)
        self.wake_up.notify(wanted.lane)

    def _put(self, task: Task, data: bytes) -> None:
        storage = self.lanes[task.lane]
        if is_trigger(task):
            if self.triggers.is_queued(task) and storage.queue_size():  # an empty lane: somebody emptied it
                return
            self.triggers.queued(task)
        storage.enqueue(data, task.priority)
        self.wake_up.notify(task.lane)

    def _keep(self, task: Task, reason: Unavailable) -> None:
        self.triggers.taken(task)
        if not self.tended:
            raise reason
        self.storage_failed(reason)
        if not self._kept.add(task):
            raise reason
        self.wake_up.notify(task.lane)

    def add_schedule(self, task: Task) -> None:
        schedule = super().add_schedule
        try:
            self._use(lambda: schedule(task))
        except Unavailable as reason:
            self._keep(task, reason)

    def enqueue_due(self) -> None:
        """Once a second: retries whose time has come, those kept in memory among them.

        Raises:
            Unavailable: the queue cannot be read now.
        """
        for task in self._kept.retries_due(self._get_timestamp()):
            self.triggers.retry_came(task)
            self._kept.add(task)
            self.wake_up.notify(task.lane)
        if self._away:
            return
        due = self._use(self.read_schedule)
        if self._trouble is not None:
            self._use(self._write_probe)
            self._storage_works()
        for task in due:
            self.triggers.retry_came(task)
            self.enqueue(task)

    def serve(self, lane: Lane) -> None:
        """Make the calling thread a worker of `lane`."""
        self._worker.lane = lane

    def dequeue(self) -> Task | None:
        """Next task of this worker's lane, waiting for one to be enqueued. An unreadable task is dropped, loudly."""
        lane: Lane = getattr(self._worker, "lane", Lane.WORK)
        seen = self.wake_up.count(lane)
        self.liveness.note("takes a task")
        kept: Task | None = self._kept.take(lane)
        if kept is not None:
            self.liveness.took()
            return kept
        try:
            data = self._use(lambda: self._take(lane, seen))
        except Unavailable as reason:
            self.storage_failed(reason)
            self.wake_up.wait(lane, seen, DOWN_WAIT_S)
            return None
        return None if data is None else self._readable(data)

    def _take(self, lane: Lane, seen: int) -> bytes | None:
        data = self.lanes[lane].dequeue()
        if data is None and (self._queue_file is not None or self._away or not self._url):  # servers wait by themselves
            self.liveness.note("waits for a task", IDLE_WAIT_S)
            self.wake_up.wait(lane, seen, IDLE_WAIT_S)
            self.liveness.note("takes a task")
            if not self._kept.waiting(lane):
                data = self.lanes[lane].dequeue()
        return data

    def _readable(self, data: bytes) -> Task | None:
        try:
            task = self.deserialize_task(data)
        except (Refused, HueyException) as error:
            logger.error("dropped an unreadable task from the queue: %s", str(error)[:200])
            return None
        self.triggers.taken(task)
        self.liveness.took()
        return task

    def execute(self, task: Task, timestamp: Any = None) -> Any:
        self.liveness.note(task.name, MAY_WAIT_S.get(task.lane, 0.0))
        return super().execute(task, timestamp)

    def stop_wanted(self) -> bool:
        """For tasks that go on until they are told to stop: each question says that they get on."""
        self.liveness.progress()
        return self.services.stopping.is_set()

    def pending_count(self) -> int:
        return len(self._kept) + sum(storage.queue_size() for storage in self.lanes.values())

    def waiting(self) -> dict[Lane, int]:
        """Tasks that wait in each lane; raises Unavailable."""
        return self._use(lambda: {lane: storage.queue_size() for lane, storage in self.lanes.items()})

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

    def create_consumer(self, **options: Any) -> Consumer:
        """A consumer whose defaults are right for production; `huey_consumer gateway.huey` needs no options."""
        if options.get("worker_type", "thread") != "thread":
            raise SystemExit("only thread workers are supported: the services live in this process")
        options |= {
            "workers": sum(WORKERS.values()),
            "periodic": False,
            "shutdown_timeout": options.get("shutdown_timeout") or SHUTDOWN_TIMEOUT_S,
            "graceful_signal": "TERM",
            "check_worker_health": True,
            "health_check_interval": 0.0,  # at every turn of the main thread: a worker killed by SystemExit comes back
        }
        return self.consumer_class(self, **options)
