"""Single keys from a terminal, without Enter."""

import contextlib
import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from types import FrameType


class Keyboard:
    """`pressed` returns what was typed since the last call; a stream that is no terminal never types."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    @property
    def usable(self) -> bool:
        return self._descriptor is not None

    def pressed(self) -> str:
        if self._descriptor is None:
            return ""
        try:
            ready, _, _ = select.select([self._descriptor], [], [], 0)
            typed = os.read(self._descriptor, 64) if ready else None
        except OSError:
            typed = b""
        if typed == b"":  # the terminal is gone
            self._descriptor = None
        return (typed or b"").decode("ascii", "replace")


@contextlib.contextmanager
def keyboard() -> Iterator[Keyboard]:
    """The terminal gives single keys while the block lasts, also after Ctrl-Z and `fg`; Ctrl-C stays a signal."""
    if not sys.stdin.isatty() or not sys.stdout.isatty() or not _in_foreground():
        yield Keyboard(None)
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def single_keys(_number: int = 0, _frame: FrameType | None = None) -> None:
        if _in_foreground():
            tty.setcbreak(descriptor)

    handler = signal.signal(signal.SIGCONT, single_keys)
    try:
        single_keys()
        yield Keyboard(descriptor)
    finally:
        signal.signal(signal.SIGCONT, handler)
        with contextlib.suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _in_foreground() -> bool:
    """Who touches the terminal from the background (`make demo &`) is stopped by it."""
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except OSError:  # not the terminal that controls us, so nobody is stopped
        return True
