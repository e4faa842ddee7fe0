"""Collects messages and lets them go in reverse order."""

from collections.abc import Callable

from teg.simulator.thingsboard.rpc import Schedule


class Reversal:
    """Bounded twice: by the number of messages, and by the time that the first of them waits."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._waiting: list[Callable[[], None]] = []

    @property
    def holding(self) -> bool:
        return bool(self._waiting)

    def add(self, send: Callable[[], None], size: int, collect_s: float) -> None:
        if not self._waiting:
            self._schedule(collect_s, self.release)
        self._waiting.append(send)
        if len(self._waiting) >= size:
            self.release()

    def release(self) -> None:
        waiting, self._waiting = self._waiting, []
        for send in reversed(waiting):
            send()
