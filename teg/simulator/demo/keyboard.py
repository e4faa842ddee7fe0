"""Single keys from a terminal, without Enter."""

import contextlib
import os
import select
import sys
import termios
import tty
from collections.abc import Iterator


class Keyboard:
    """`pressed` returns what was typed since the last call; a stream that is no terminal never types."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def pressed(self) -> str:
        if self._descriptor is None:
            return ""
        ready, _, _ = select.select([self._descriptor], [], [], 0)
        if not ready:
            return ""
        typed = os.read(self._descriptor, 64)
        if not typed:  # the terminal is gone
            self._descriptor = None
        return typed.decode("ascii", "replace")


@contextlib.contextmanager
def keyboard() -> Iterator[Keyboard]:
    """The terminal gives single keys while the block lasts; Ctrl-C stays a signal."""
    if not sys.stdin.isatty() or not sys.stdout.isatty():
        yield Keyboard(None)
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield Keyboard(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
