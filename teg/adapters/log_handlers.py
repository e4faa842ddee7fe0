"""Where log lines go: standard error, a ring for `get_logs`, and (INFO and above) the server. Secrets go nowhere."""

import logging
import sys
import threading
from collections import deque
from collections.abc import Callable

RING_LINES = 1000
MAX_LINE_CHARACTERS = 4096
FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
SEVERITIES = {logging.DEBUG: "DEBUG", logging.INFO: "INFO", logging.WARNING: "WARN", logging.ERROR: "ERROR"}

Forward = Callable[[int, str, str], None]


class LogOutput:
    """Installed once for the process; `add_secret` may be called at any time."""

    def __init__(self, level: str) -> None:
        self._secrets: set[str] = set()
        self._ring: deque[tuple[int, str]] = deque(maxlen=RING_LINES)
        self._ring_lock = threading.Lock()
        self._forward: Forward | None = None
        self._inside = threading.local()
        self._root = logging.getLogger()
        self._stderr = logging.StreamHandler(sys.stderr)
        self._stderr.setFormatter(_SecretsHidden(FORMAT, self._secrets))
        self._sink = _Sink(self._take)
        self._sink.setFormatter(_SecretsHidden("%(message)s", self._secrets))
        self._ring_format = _SecretsHidden(FORMAT, self._secrets)
        self._level = level
        self._before: tuple[list[logging.Handler], int] = ([], self._root.level)

    def install(self) -> None:
        """Take the place of whatever handled lines until now; `remove` gives it back."""
        self._before = list(self._root.handlers), self._root.level
        self._root.handlers[:] = [self._stderr, self._sink]
        self.set_level(self._level)
        huey = logging.getLogger("huey")
        huey.handlers.clear()  # the consumer's own handler would print every line twice
        for noisy in ("huey", "docker", "urllib3", "paho"):
            logging.getLogger(noisy).setLevel(logging.WARNING)

    def remove(self) -> None:
        self._root.handlers[:], level = self._before
        self._root.setLevel(level)

    def set_level(self, level: str) -> None:
        """DEBUG, INFO, WARNING or ERROR, from now on."""
        self._root.setLevel(level)

    @property
    def level(self) -> str:
        return logging.getLevelName(self._root.level)

    def forward_to(self, forward: Forward | None) -> None:
        """`forward(ts_ms, severity, text)` is called for every line of level INFO and above; it must not block."""
        self._forward = forward

    def add_secret(self, secret: str | None) -> None:
        """Replace this text by *** in everything that is logged."""
        if secret and len(secret) >= 4:
            self._secrets.add(secret)

    def recent(self, lines: int, level: int = logging.DEBUG) -> list[str]:
        """The newest lines at or above `level`, oldest first."""
        with self._ring_lock:  # lines may come while we look
            found = [text for number, text in self._ring if number >= level]
        return found[-lines:] if lines > 0 else []

    def _take(self, record: logging.LogRecord, text: str) -> None:
        line = self._ring_format.format(record)[:MAX_LINE_CHARACTERS]
        with self._ring_lock:
            self._ring.append((record.levelno, line))
        if self._forward is None or record.levelno < logging.INFO or getattr(self._inside, "forwarding", False):
            return
        self._inside.forwarding = True  # a line logged while forwarding a line goes no further
        try:
            self._forward(int(record.created * 1000), _severity(record.levelno), text)
        finally:
            self._inside.forwarding = False


class _Sink(logging.Handler):
    def __init__(self, take: Callable[[logging.LogRecord, str], None]) -> None:
        super().__init__()
        self._take = take

    def emit(self, record: logging.LogRecord) -> None:
        """A line that cannot be written (wrong arguments, a forward that fails) must not end whoever wrote it."""
        try:
            self._take(record, self.format(record))
        except Exception:  # noqa: BLE001 - as every handler of the standard library does
            self.handleError(record)


class _SecretsHidden(logging.Formatter):
    def __init__(self, layout: str, secrets: set[str]) -> None:
        super().__init__(layout)
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        for secret in sorted(self._secrets, key=len, reverse=True):  # one may be the beginning of another
            text = text.replace(secret, "***")
        return text


def _severity(level: int) -> str:
    return next((name for number, name in sorted(SEVERITIES.items(), reverse=True) if level >= number), "DEBUG")
