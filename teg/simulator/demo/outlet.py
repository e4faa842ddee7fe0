"""The demo's standard output, which may go away: a closed terminal, `make demo | head`."""

from collections.abc import Callable
from typing import TextIO, cast


class Outlet:
    """As much of a text stream as the views need; once it cannot be written, `on_gone` is called and all is dropped."""

    def __init__(self, stream: TextIO, on_gone: Callable[[], object]) -> None:
        self._stream = stream
        self._on_gone = on_gone
        self.gone = False

    @property
    def encoding(self) -> str:
        return self._stream.encoding or "ascii"

    @property
    def as_text(self) -> TextIO:
        return cast(TextIO, self)

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def write(self, text: str) -> int:
        if not self.gone:
            try:
                return self._stream.write(text)
            except OSError:
                self._lose()
        return len(text)

    def flush(self) -> None:
        if not self.gone:
            try:
                self._stream.flush()
            except OSError:
                self._lose()

    def _lose(self) -> None:
        self.gone = True
        self._on_gone()
