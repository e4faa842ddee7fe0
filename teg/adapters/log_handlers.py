"""Where log lines go: standard error, `get_logs`, and (INFO and above) the server. Secrets go nowhere.

Whatever a line is made of, it is one line: control characters of others (names of methods, output of programs) are
escaped here, for all lines, so that nobody can write a line of ours. And no caller can flood the log.
"""

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable

import orjson

from teg.domain.redaction import redacted_text
from teg.domain.server import Bucket

RING_LINES = 1000
MAX_LINE_CHARACTERS = 4096
#: So many lines from one place in the program at once, and one more in so many seconds.
BURST_LINES = 200
SECONDS_A_LINE = 2.0
#: Everything that ends, moves or reorders a line: C0, DEL, C1, Unicode's line ends, directions and invisibles.
_CONTROLS = [*range(0x20), *range(0x7F, 0xA0), 0x061C, *range(0x200B, 0x2010), *range(0x2028, 0x202F)]
_CONTROLS += [*range(0x2060, 0x2070), 0xFEFF, *range(0xD800, 0xE000), *range(0xE0000, 0xE0080)]
_ESCAPES = {code: chr(code).encode("unicode_escape").decode("ascii") for code in _CONTROLS}
FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
SEVERITIES = {logging.DEBUG: "DEBUG", logging.INFO: "INFO", logging.WARNING: "WARN", logging.ERROR: "ERROR"}

#: What journald takes from the beginning of a line (sd-daemon(3)); time and level are its own columns.
PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3}

_LOOKED_AT = 16_384

Forward = Callable[[int, str, str], None]


class LogOutput:
    """Installed once for the process; `add_secret` may be called at any time."""

    def __init__(self, level: str, layout: str = "text") -> None:
        """`layout` of standard error: `text`, `json` (an object a line), or `journal` (for systemd's)."""
        self._secrets: set[str] = set()
        self._ring: deque[tuple[int, str]] = deque(maxlen=RING_LINES)
        self._ring_lock = threading.Lock()
        self._forward: Forward | None = None
        self._inside = threading.local()
        self._root = logging.getLogger()
        self._stderr = logging.StreamHandler(sys.stderr)
        self._stderr.setFormatter(LAYOUTS[layout](FORMAT, self._secrets))
        self._sink = _Sink(self._take)
        self._sink.setFormatter(_SecretsHidden("%(message)s", self._secrets))
        self._ring_format = _SecretsHidden(FORMAT, self._secrets)
        limit = FloodLimit()
        self._stderr.addFilter(limit)
        self._sink.addFilter(limit)
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


class FloodLimit(logging.Filter):
    """Leaves out lines that one place in the program writes too fast, and says how many when it writes again."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now_s = now_s
        self._lock = threading.Lock()
        self._places: dict[tuple[str, int], tuple[Bucket, list[int]]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Several handlers ask about the same record: it is decided once."""
        if (decided := getattr(record, "teg_kept", None)) is None:
            decided = record.teg_kept = self._decide(record)
        return bool(decided)

    def _decide(self, record: logging.LogRecord) -> bool:
        now_s = self._now_s()
        with self._lock:
            fresh = (Bucket(BURST_LINES, 1 / SECONDS_A_LINE, BURST_LINES, now_s), [0])
            bucket, left_out = self._places.setdefault((record.pathname, record.lineno), fresh)
            if bucket.wait_s(now_s) > 0:
                left_out[0] += 1
                return False
            bucket.take()
            count, left_out[0] = left_out[0], 0
        if count:
            record.msg = f"{record.getMessage()} ({count} lines like this one were left out)"
            record.args = None
        return True


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
        text = super().format(record)[:_LOOKED_AT]
        for secret in sorted(self._secrets, key=len, reverse=True):  # one may be the beginning of another
            text = text.replace(secret, "***")
        return redacted_text(text, _LOOKED_AT).translate(_ESCAPES)


class _ForJournal(_SecretsHidden):
    """No second time stamp, and the priority by which `journalctl -p warning` chooses."""

    def __init__(self, layout: str, secrets: set[str]) -> None:
        super().__init__("%(name)s: %(message)s", secrets)

    def format(self, record: logging.LogRecord) -> str:
        priority = next(PRIORITIES[level] for level in sorted(PRIORITIES, reverse=True) if record.levelno >= level)
        return f"<{priority}>{super().format(record)}"


class _AsJson(_SecretsHidden):
    """One object a line, for programs that collect logs."""

    def __init__(self, layout: str, secrets: set[str]) -> None:
        super().__init__("%(message)s", secrets)

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "ts_ms": int(record.created * 1000),
            "level": record.levelname,
            "logger": record.name,
            "message": super().format(record),
        }
        return orjson.dumps(line).decode()


LAYOUTS = {"text": _SecretsHidden, "journal": _ForJournal, "json": _AsJson}


def _severity(level: int) -> str:
    return next((name for number, name in sorted(SEVERITIES.items(), reverse=True) if level >= number), "DEBUG")
