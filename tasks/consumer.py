"""The process: one per data directory, each worker on its lane, services open before the first and after the last."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import signal
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TextIO, TypeVar

from huey.consumer import Consumer, Scheduler, Worker

from tasks.huey_app import TICK_S, GatewayHuey
from tasks.in_memory import WakingPipe
from tasks.lanes import WORKERS, Lane
from tasks.queue_name import queue_name
from tasks.services import Services
from tasks.storage import sqlite_path
from teg.domain.errors import Refused, Unavailable
from teg.domain.liveness import Pulse
from teg.domain.ports import EXIT_STATUSES
from teg.settings import InvalidSettings, Settings

T = TypeVar("T")
logger = logging.getLogger("gateway.queue")

START_RETRY_S = 5.0
#: The main thread waits for signals in between.
MAIN_WAIT_S = 60.0
#: Turns are a little longer or shorter than a second.
EARLY_S = 0.1
#: The main thread looks this often whether all workers live; a signal wakes it at once.
TURN_S = 5.0
ENDING_S = 0.05


@contextmanager
def signals_wake(pipe: WakingPipe) -> Iterator[None]:
    before = signal.set_wakeup_fd(pipe.open(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        pipe.close()


class LaneWorker(Worker):
    """Takes a free seat of a lane when its thread starts and gives it back when the thread ends, however it ends."""

    huey: GatewayHuey
    seats: list[Lane]
    ended: Callable[[], None]

    def initialize(self) -> None:
        self.seat = self.seats.pop()
        self.huey.serve(self.seat)
        self.pulse = self.huey.liveness.watch(f"a worker of lane {self.seat}")

    def shutdown(self) -> None:
        self.huey.liveness.forget(self.pulse)
        self.seats.append(self.seat)
        self.ended()


class TimetableScheduler(Scheduler):
    """Every second: the timetable and due retries; at once: tasks that other processes put into the queue file."""

    huey: GatewayHuey

    def initialize(self) -> None:
        self._due_s = 0.0
        self.huey.wake_up.scheduler.open()
        self.huey.tended = True
        self.pulse = self.huey.liveness.watch("the scheduler")

    def shutdown(self) -> None:
        self.huey.liveness.forget(self.pulse)
        self.huey.wake_up.scheduler.close()

    def loop(self, now: Any = None) -> None:
        self.pulse.note("goes through the timetable")
        self._outlive("the queue's care", self._tend_queue)
        for entry in self.huey.timetable:
            self._outlive(entry.name, partial(entry.tick, time.monotonic(), self.huey.trigger))
        self.huey.wake_up.scheduler.wait(*self.huey.next_look())

    def _tend_queue(self) -> None:
        try:
            self.huey.tend_storage()
            if time.monotonic() >= self._due_s:
                self._due_s = time.monotonic() + TICK_S - EARLY_S
                self.huey.enqueue_due()
        except Unavailable as reason:
            self.huey.storage_failed(reason)

    def _outlive(self, name: str, act: Callable[[], None]) -> None:
        """What surprises one line keeps no other from its turn; said once, with its trace, and once when it is over."""
        trouble = f"the timetable's {name}"
        try:
            act()
        except Unavailable:
            return  # its condition cannot be looked at now
        except Exception as error:
            if self.huey.troubles.failed(trouble, repr(error)):
                logger.error("the timetable: %s raised %s", name, type(error).__name__, exc_info=error)
        else:
            self.huey.troubles.worked(trouble)


class GatewayConsumer(Consumer):
    """One process per data directory; services open before the first worker and close after the last."""

    scheduler_class = TimetableScheduler
    huey: GatewayHuey

    def __init__(self, huey: GatewayHuey, **options: Any) -> None:
        seats = [lane for lane, count in WORKERS.items() for _ in range(count)]
        self._signals = WakingPipe()
        ended = staticmethod(self._signals.wake)
        self.worker_class = type("SeatedWorker", (LaneWorker,), {"seats": seats, "ended": ended})
        self._pulse: Pulse | None = None
        self._held: list[TextIO] = []
        self._lock_path = Path()
        super().__init__(huey, **options)
        self._stop_flag_timeout = 0.0  # Huey looks ten times a second whether a signal came; we wait for it
        # All of them stop gracefully (contract); a second one interrupts.
        self._signal_actions = dict.fromkeys((signal.SIGTERM, signal.SIGINT, *EXIT_STATUSES), (False, True))

    def run(self) -> None:
        """
        Raises:
            SystemExit: 1 with one message for wrong configuration or a second gateway on the same data; `EXIT_STATUS`
                when the server asked for it (`exit`), `STUCK_STATUS` when one of our threads did not get on.
        """
        os.umask(0o077)  # what is meant for others is given to them where it is made
        with signals_wake(self._signals):
            self._run()

    def _run(self) -> None:
        settings = settings_or_exit()
        self._set_signal_handlers()  # from the first moment on: a start may wait long for a disk or a server
        try:
            with ExitStack() as stack:
                lock = settings.data_path / "gateway.lock"
                self._held = [self._patiently(lambda: stack.enter_context(single_instance(lock)))]
                stack.callback(lambda: [file.close() for file in self._held])
                self._lock_path = lock
                self._patiently(lambda: self.huey.open_when_possible(settings.queue_url, own_name(settings)))
                stack.callback(self.huey.close)
                self._patiently(lambda: stack.enter_context(self._lifespan(settings)))
                super().run()
        except Refused as reason:
            raise SystemExit(f"The gateway cannot start: {reason}") from reason
        if (status := EXIT_STATUSES.get(self._signum or 0)) is not None:
            raise SystemExit(status)

    def loop(self, health_check_ts: float | None = None) -> float | None:
        """The main thread: asleep until a signal comes, apart from a look at the workers every few seconds."""
        if self._signals.wait(TURN_S):
            self.stop_flag.wait(ENDING_S)  # the worker that woke us is not gone yet
        return super().loop(health_check_ts)

    def check_worker_health(self) -> bool:
        """Now and then on the main thread."""
        self._pulse = self._pulse or self.huey.liveness.watch("the main thread")
        self._pulse.note("looks after the workers", MAIN_WAIT_S)
        if self._held and not lock_again(self._lock_path, self._held):
            logger.error("another gateway works on %s now; this one ends", self._lock_path.parent)
            self._held.clear()
            os.kill(os.getpid(), signal.SIGTERM)
        return bool(super().check_worker_health())

    def _set_signal_handlers(self) -> None:
        """SIGHUP does not end us, and does not re-execute in place, as Huey would: that skips every closing."""
        super()._set_signal_handlers()
        signal.signal(signal.SIGHUP, lambda *_: logger.warning("SIGHUP is ignored; restart to read the settings again"))

    def stop(self, graceful: bool = False) -> None:
        self.stop_flag.set()
        self._signals.wake()
        try:
            self.huey.services.stop()
        finally:
            self.huey.wake_up.notify_all()
            super().stop(graceful)

    def _patiently(self, attempt: Callable[[], T]) -> T:
        """What is not available now makes the start take longer, until it is or we are told to stop."""
        while True:
            try:
                return attempt()
            except Unavailable as reason:
                logger.error("%s; trying again in %.0f s", reason, START_RETRY_S)
            deadline_s = time.monotonic() + START_RETRY_S
            while time.monotonic() < deadline_s:
                if self._signum is not None:
                    raise SystemExit(0)
                time.sleep(0.1)

    def _lifespan(self, settings: Settings) -> AbstractContextManager[Services]:
        if self.huey.lifespan is None:
            raise SystemExit("start the gateway with: huey_consumer gateway.huey")
        return self.huey.lifespan(settings)


def settings_or_exit() -> Settings:
    """Exit 1 with every problem named at once; wrong configuration is the only thing that stops a start."""
    try:
        return Settings.from_environment()
    except InvalidSettings as problems:
        raise SystemExit(str(problems)) from problems


def own_name(settings: Settings) -> str:
    """A queue file is ours alone; on a server we need a name.

    Raises:
        Unavailable: the name cannot be read or written now.
    """
    return "teg" if sqlite_path(settings.queue_url) else queue_name(settings.queue_name_path)


@contextmanager
def single_instance(path: Path) -> Iterator[TextIO]:
    """Hold an exclusive lock for the life of the process; the kernel drops it however the process ends.

    Raises:
        SystemExit: 1, another gateway works on these data, or the directory is not ours to write.
        Unavailable: the disk does not let us now.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = _open_lock(path)
    except (PermissionError, NotADirectoryError) as error:
        raise SystemExit(f"TEG_DATA_PATH={path.parent} cannot be used: {error}") from error
    except OSError as error:
        raise Unavailable(f"the lock {path} cannot be opened: {error}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SystemExit(f"another gateway already works on {path.parent} (lock {path}); not starting") from error
        except OSError as error:
            raise Unavailable(f"{path} cannot be locked: {error}") from error
        yield lock


def lock_again(path: Path, held: list[TextIO]) -> bool:
    """The lock stands where the next start looks for it: taken anew when it, or its directory, was moved or removed.

    False: another gateway was faster. What cannot be done now is done the next time.
    """
    with suppress(OSError):
        if os.path.samestat(path.lstat(), os.fstat(held[-1].fileno())):
            return True
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = _open_lock(path)
    except (OSError, SystemExit):
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        return not isinstance(error, BlockingIOError)
    held.append(lock)
    logger.warning("%s was moved or removed; locked anew", path)
    return True


def _open_lock(path: Path) -> TextIO:
    """Whoever can open it can lock the gateway out, so nobody else can; a link is not followed.

    Raises:
        SystemExit: somebody put something else there.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise SystemExit(f"{path} is not an ordinary file: the gateway cannot use it as its lock") from error
        raise
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_uid not in (0, os.geteuid()):
        os.close(descriptor)
        raise SystemExit(f"{path} belongs to another account or is not an ordinary file; not starting")
    if found.st_mode & 0o077:
        os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "r+")
