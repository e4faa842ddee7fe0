import threading
from typing import Any

from huey.api import Huey

class BaseProcess:
    huey: Huey
    stop_flag: threading.Event
    _logger: Any
    def initialize(self) -> None: ...
    def loop(self, now: Any = ...) -> None: ...
    def shutdown(self) -> None: ...

class Worker(BaseProcess): ...

class Scheduler(BaseProcess):
    interval: int
    def __init__(self, huey: Huey, stop_flag: threading.Event, interval: int, periodic: bool) -> None: ...

class Consumer:
    huey: Huey
    stop_flag: threading.Event
    worker_class: type[Worker]
    scheduler_class: type[Scheduler]
    _signal_actions: dict[int, tuple[bool, bool]]
    _stop_flag_timeout: float
    scheduler: threading.Thread
    workers: int
    periodic: bool
    shutdown_timeout: float | None
    def check_worker_health(self) -> bool: ...
    worker_threads: list[tuple[Worker, threading.Thread]]
    def __init__(self, huey: Huey, **options: Any) -> None: ...
    def run(self) -> None: ...
    def loop(self, health_check_ts: float | None = ...) -> float | None: ...
    _signum: int | None
    _health_check: bool
    def start(self) -> None: ...
    def _set_signal_handlers(self) -> None: ...
    def stop(self, graceful: bool = ...) -> None: ...
