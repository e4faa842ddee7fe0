"""What sessions kept in memory share: when a publish is acknowledged, and what the end of a connection does to it."""

from collections.abc import Callable


class Acknowledgements:
    """`hold`: nothing is acknowledged until the connection is lost, and then as failed."""

    def __init__(self) -> None:
        self.connected = True
        self.epoch = 1
        self.hold = False
        self._waiting: list[Callable[[bool], None]] = []

    def settle(self, on_done: Callable[[bool], None]) -> None:
        if self.hold:
            self._waiting.append(on_done)
        else:
            on_done(True)

    def lose(self) -> None:
        self.connected = False
        waiting, self._waiting = self._waiting, []
        for on_done in waiting:
            on_done(False)

    def reconnect(self) -> None:
        self.connected, self.hold = True, False
        self.epoch += 1
