"""A process that does not end, for tests of what ends it."""

import threading


class FakeProcess:
    """Notes its endings and goes on."""

    def __init__(self) -> None:
        self.endings: list[str] = []

    def stacks(self) -> dict[int, tuple[str, str]]:
        return {threading.get_ident(): ("main", "file.py:1 outer > file.py:2 inner"), 7: ("other", "file.py:3 waits")}

    def end_gracefully(self) -> None:
        self.endings.append("gracefully")

    def end_at_once(self) -> None:
        self.endings.append("at once")
