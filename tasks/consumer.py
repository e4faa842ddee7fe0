"""The process: one per data directory, workers seated by lane, services open before the first and after the last."""

from __future__ import annotations

import fcntl
import logging
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huey.consumer import Consumer, Scheduler, Worker

from domain.errors import Unavailable
from domain.services import Services
from settings import InvalidSettings, Settings
from tasks.lanes import WORKERS, Lane

if TYPE_CHECKING:
    from tasks.queue import GatewayHuey

logger = logging.getLogger("gateway.queue")

#: How soon a task enqueued by another process is noticed.
POLL_S = 0.5


class LaneWorker(Worker):
    """Takes a free seat of a lane when its thread starts and gives it back when the thread ends, however it ends."""

    huey: GatewayHuey
    seats: list[Lane]

    def initialize(self) -> None:
        self.seat = self.seats.pop()
        self.huey.serve(self.seat)

    def shutdown(self) -> None:
        self.seats.append(self.seat)


class TimetableScheduler(Scheduler):
    """Every half second: other processes' writes; every second: due retries and the timetable."""

    huey: GatewayHuey

    def initialize(self) -> None:
        self._started_s = time.monotonic()
        self._odd = False

    def loop(self, now: Any = None) -> None:
        try:
            self.huey.notice_others()
            self._odd = not self._odd
            if self._odd:
                self.huey.enqueue_due()
                for entry in self.huey.timetable:
                    entry.tick(time.monotonic() - self._started_s)
        except Exception:
            logger.exception("the queue cannot be read or written now; trying again")
            self.stop_flag.wait(5.0)
        self.stop_flag.wait(POLL_S)


class GatewayConsumer(Consumer):
    """One process per data directory; services open before the first worker and close after the last."""

    scheduler_class = TimetableScheduler
    huey: GatewayHuey

    def __init__(self, huey: GatewayHuey, **options: Any) -> None:
        seats = [lane for lane, count in WORKERS.items() for _ in range(count)]
        self.worker_class = type("SeatedWorker", (LaneWorker,), {"seats": seats})
        super().__init__(huey, **options)
        # Both signals stop gracefully (contract); a second one interrupts.
        self._signal_actions = {signal.SIGTERM: (False, True), signal.SIGINT: (False, True)}

    def run(self) -> None:
        settings = settings_or_exit()
        try:
            self._run(settings)
        except InvalidSettings as problems:  # found in what a setting points to, e.g. an allow-list file
            raise SystemExit(str(problems)) from problems

    def _run(self, settings: Settings) -> None:
        with (
            single_instance(settings.data_path / "gateway.lock"),
            self._queue_open(settings.queue_url),
            self._lifespan(settings) as services,
            self.huey.serving(services),
        ):
            super().run()

    def stop(self, graceful: bool = False) -> None:
        self.stop_flag.set()
        self.huey.services.stop()
        self.huey.wake_up.ring_all()
        super().stop(graceful)

    @contextmanager
    def _queue_open(self, url: str) -> Iterator[None]:
        """A queue server that is down is weather: keep trying, the start just takes longer."""
        while True:
            try:
                self.huey.open(url)
                break
            except Unavailable as reason:
                logger.error("%s; trying again in 5 s", reason)
                time.sleep(5.0)
        try:
            yield
        finally:
            self.huey.close()

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


@contextmanager
def single_instance(path: Path) -> Iterator[None]:
    """Hold an exclusive lock for the life of the process; the kernel drops it however the process ends."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise SystemExit(f"another gateway already works on {path.parent} (lock {path}); not starting") from error
        yield
