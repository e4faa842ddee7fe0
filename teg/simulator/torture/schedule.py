"""A random order of faults, several at a time; what lasts is undone by a later draw, or in the end by `heal`."""

import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack

Action = Callable[[], object]


class Schedule:
    """The same `seed` and actions give the same order. `between` is called after every action."""

    def __init__(self, seed: int, between: Action) -> None:
        self.random = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self._between = between
        self._actions: dict[str, Action] = {"nothing": lambda: None}
        self._undo: dict[str, ExitStack] = {}

    def add(self, name: str, action: Action) -> None:
        self._actions[name] = action

    def add_lasting(self, name: str, begin: Action, end: Action) -> None:
        """Drawn once it begins, drawn again it ends."""

        def toggle() -> None:
            if name in self._undo:
                self.end(name)
            else:
                begin()
                self._undo[name] = ExitStack()
                self._undo[name].callback(end)

        self._actions[name] = toggle

    def lasts(self, name: str) -> bool:
        return name in self._undo

    def end(self, name: str) -> None:
        if name in self._undo:
            self._undo.pop(name).close()

    def run(self, until_s: float, steps: int = 1_000_000_000) -> None:
        """Until the monotonic clock shows `until_s`, at most so many steps."""
        names = sorted(self._actions)
        for _ in range(steps):
            if time.monotonic() >= until_s:
                break
            name = self.random.choice(names)
            self.counts[name] += 1
            self._actions[name]()
            self._between()

    def heal(self) -> None:
        for name in list(self._undo):
            self.end(name)
