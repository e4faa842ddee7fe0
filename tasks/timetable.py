"""A line of the timetable: what is enqueued every so often, by a clock that no one can set."""

from __future__ import annotations

from collections.abc import Callable

from huey.api import TaskWrapper


class Every:
    """One line of the timetable: `run(task)` when `interval_s` have passed since the last time, and at start.

    With `when`, only if that is true then.
    """

    def __init__(self, interval_s: float, task: TaskWrapper[[], None], when: Callable[[], bool] | None = None) -> None:
        self.interval_s = interval_s
        self.task = task
        self._when = when
        self.make_due()

    @property
    def name(self) -> str:
        return self.task.name

    def make_due(self) -> None:
        self._due_s = float("-inf")

    def tick(self, now_s: float, run: Callable[[TaskWrapper[[], None]], None] = lambda task: task()) -> None:
        """`now_s` is monotonic, so wall-clock jumps are not seen; a long stall counts once."""
        if now_s >= self._due_s:
            self._due_s = now_s + self.interval_s
            if self._when is None or self._when():
                run(self.task)
