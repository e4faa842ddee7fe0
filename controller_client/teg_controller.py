"""Hand measurements to the gateway from a controller: one file, standard library only, Python 3.8 or later.

    from teg_controller import Gateway

    with Gateway() as gateway:
        gateway.send({"co2_ppm": 415.2})
        gateway.heartbeat()

What is sent is in `communication_queue.db` and on the disk when the call returns; the gateway fetches it there.
The file may be missing, locked, moved aside or created anew at any time: calls wait, reopen it and carry on, and say so
in the log (`teg_controller`; on standard error unless logging is set up).
"""

from __future__ import annotations

import contextlib
import json
import logging
import operator
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["Gateway", "NotRecorded"]

#: Larger records do not fit into one message to the server, and the gateway would set them aside.
MAX_RECORD_BYTES = 59_000
#: The server drops longer keys without telling anybody.
MAX_KEY_LENGTH = 255
MAX_LOG_LENGTH = 8_000
#: March 1973 and the year 9999: outside stands a time stamp in another unit, and the gateway would set it aside.
EARLIEST_TS_MS = 100_000_000_000
LATEST_TS_MS = 253_402_300_799_999
#: Stamps this far ahead of the clock are worth a line in the log.
AHEAD_MS = 60_000

# `teg_last_ts` stays empty: its AUTOINCREMENT counter *is* the last time stamp given out. That counter lives on a
# page that every insert into `messages` writes anyway; a row of our own would add 4 KiB a record (+48 % wear).
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS messages(id INTEGER PRIMARY KEY AUTOINCREMENT, type text, message text)",
    "CREATE TABLE IF NOT EXISTS health_check(id INTEGER PRIMARY KEY, timestamp_ms INTEGER)",
    "CREATE TABLE IF NOT EXISTS teg_last_ts(ts INTEGER PRIMARY KEY AUTOINCREMENT)",
)
# Moving pages from the WAL into the file is the gateway's job: two processes doing it at once is what the
# WAL-reset bug of SQLite 3.7-3.51.2 needs. At 16 MiB nobody has done it for long: the gateway is away, we may.
_WAL_PAGES_WITHOUT_GATEWAY = 4_096

_VARIABLE, _IN_THE_CONTAINER = "TEG_CONTROLLER_DATA_PATH", "/root/data"
_MARKS_OF_A_CONTAINER = ("/.dockerenv", "/run/.containerenv")

# How long SQLite itself waits for a lock. Short, because no signal handler runs meanwhile; we loop around it.
_BUSY_S = 0.25
_PAUSE_S = 0.02
#: A call that waits for longer says what for.
_UNSAID_S = 1.0
_LOOKS = 5

# A connection must be neither used nor closed in a forked child; here the garbage collector does not find it.
_inherited: list[sqlite3.Connection] = []


logger = logging.getLogger("teg_controller")


class NotRecorded(Exception):  # noqa: N818 - says what holds: the record is not in the inbox
    """The inbox could not be written for the whole `retry_s`; the message names the file and the reason."""


def default_path() -> Path:
    """`$TEG_CONTROLLER_DATA_PATH/communication_queue.db`; the gateway mounts that directory at `/root/data`."""
    return Path(os.environ.get(_VARIABLE) or _IN_THE_CONTAINER) / "communication_queue.db"


def _on_a_desk(path: Path) -> bool:
    """Nobody said where the data are, and here is no container: no gateway will ever mount anything."""
    missing = path.parent == Path(_IN_THE_CONTAINER) and not os.path.isdir(_IN_THE_CONTAINER)  # noqa: PTH112 - never raises
    return missing and not any(os.path.exists(mark) for mark in _MARKS_OF_A_CONTAINER)  # noqa: PTH110


class Gateway:
    """The inbox of the gateway, seen from the controller. Threads may share one; processes open their own.

    `retry_s` is how long a call waits for a locked or missing file before it raises NotRecorded.
    `durable=False` saves one flush per call: a power cut may then take the last seconds of what was sent.
    `clock` returns Unix milliseconds.

    Opening happens at the first call, so a controller may start before its data directory is mounted.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        retry_s: float = 30.0,
        durable: bool = True,
        clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.path = default_path() if path is None else Path(path)
        self._retry_s = retry_s
        self._synchronous = "FULL" if durable else "NORMAL"
        self._clock = clock
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._last_ts = 0
        self._told_ahead = False
        self._told_wait = 0.0

    def __enter__(self) -> Gateway:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def send(self, values: Mapping[str, Any], ts: int | None = None, type: str = "measurement") -> int:
        """Record one set of values and return its time stamp in Unix milliseconds.

        Without `ts` the stamp is the clock's, but always later than every stamp given out before: by other
        threads and processes, ahead of a restart, ahead of the clock being set back. A `ts` is taken as it is;
        on the server the same key with the same `ts` is one point, and the last one counts.

        Raises:
            ValueError: the server could not store this; nothing was recorded.
            NotRecorded: the inbox could not be written for `retry_s` seconds.
        """
        return self._record([_encode_values(values)], None if ts is None else [_check_ts(ts)], type)[0]

    def send_many(
        self,
        records: Sequence[Mapping[str, Any]],
        ts: Sequence[int] | None = None,
        type: str = "measurement",
    ) -> list[int]:
        """Record several sets of values, all or none, for the price of one flush; `ts` has one stamp for each.

        Keep it below a thousand: the inbox is locked for others meanwhile. See `send`.
        """
        if ts is not None and len(ts) != len(records):
            raise ValueError(f"{len(ts)} time stamps for {len(records)} records")
        bodies = [_encode_values(values) for values in records]
        return self._record(bodies, None if ts is None else [_check_ts(stamp) for stamp in ts], type)

    def send_log(self, severity: str, message: str) -> int:
        """Record a log line (`severity`: DEBUG, INFO, WARN or ERROR); a long `message` is cut. See `send`."""
        values = {"severity": str(severity).upper(), "message": message[:MAX_LOG_LENGTH]}
        return self.send(values, type="log")

    def heartbeat(self) -> None:
        """Say that the controller is alive; without it the gateway restarts the controller after some hours.

        Raises:
            NotRecorded: see `send`.
        """
        # Not flushed: a heartbeat that a power cut takes is worth nothing anyway.
        self._write(self._beat, "NORMAL")

    def forget_clock(self) -> None:
        """Let the next stamp follow the clock again, after the clock had been wrong and far in the future.

        Stamps never go back by themselves, so they would count on from that future, 1 ms per record.
        """
        self._write(lambda connection: _store_last_ts(connection, 0), self._synchronous)
        self._last_ts = 0

    def close(self) -> None:
        """Let go of the file; a later call opens it again."""
        with self._alone(time.monotonic() + self._retry_s):
            self._drop()

    def _record(self, bodies: list[str], ts: list[int] | None, kind: str) -> list[int]:
        if not isinstance(kind, str) or not kind:
            raise ValueError(f"type has to be a non-empty string, not {kind!r}")
        stamps: list[int] = []

        def stamp_and_insert(connection: sqlite3.Connection) -> None:
            stamps[:] = self._stamps(connection, len(bodies)) if ts is None else ts
            _insert(connection, kind, stamps, bodies)

        if not self._write(stamp_and_insert, self._synchronous):
            # It went into a file that was moved aside meanwhile. The new one gets it with the same stamps, so
            # that the server sees one point should the gateway salvage the old file.
            self._write(lambda connection: _insert(connection, kind, stamps, bodies), self._synchronous)
        return stamps

    def _stamps(self, connection: sqlite3.Connection, count: int) -> list[int]:
        """Take the next `count` stamps; under the write lock, so one at a time over all processes."""
        now = self._clock()
        first = max(now, self._last_ts + 1, _load_last_ts(connection) + 1)
        last = first + count - 1
        if first - now > AHEAD_MS and not self._told_ahead:
            last += 1
            text = f"time stamps are {(first - now) // 1000} s ahead of the controller's clock; was it set back?"
            _insert(connection, "log", [last], [_encode_values({"severity": "WARN", "message": text})])
            self._told_ahead = True
        _store_last_ts(connection, last)
        self._last_ts = last
        return list(range(first, first + count))

    def _beat(self, connection: sqlite3.Connection) -> None:
        connection.execute("INSERT OR REPLACE INTO health_check(id, timestamp_ms) VALUES (1, ?)", (self._clock(),))

    def _write(self, work: Callable[[sqlite3.Connection], None], synchronous: str) -> bool:
        """Run `work` in one transaction, again until it is committed; False when the file was then gone."""
        begun = time.monotonic()
        deadline = begun + self._retry_s
        with self._alone(deadline):
            while True:
                try:
                    with _transaction(self._open(), synchronous) as connection:
                        work(connection)
                    return _identity(self.path) == self._file
                except sqlite3.DatabaseError as error:
                    self._give_up_or_go_on(error, begun, deadline)
                time.sleep(_PAUSE_S)

    def _give_up_or_go_on(self, error: sqlite3.DatabaseError, begun: float, deadline: float) -> None:
        locked = "locked" in str(error)
        if not locked:
            self._drop()
        hint = "another process holds it" if locked else "is the directory there, writable and not full?"
        if not locked and _on_a_desk(self.path):
            hint = f"on a desk, without a gateway's container, set {_VARIABLE} to a directory; see 'teg sim desk'"
            raise NotRecorded(f"there is no {self.path.parent}: {hint}") from error
        if time.monotonic() >= deadline:
            tried = f"{self.path} could not be written for {self._retry_s:g} s"
            raise NotRecorded(f"{tried}: {error} ({hint})") from error
        self._say_once(f"waiting for {self.path}: {error} ({hint})", begun)

    def _say_once(self, text: str, begun: float) -> None:
        """Once in each call that waits."""
        if self._told_wait != begun and time.monotonic() >= begun + _UNSAID_S:
            self._told_wait = begun
            logger.warning(text)

    def _open(self) -> sqlite3.Connection:
        """The connection to the file that is at `path` now; a file that was replaced is opened anew."""
        for _ in range(_LOOKS):
            before = _identity(self.path)
            if self._connection is not None and before == self._file:
                return self._connection
            self._drop()
            self._connection = _connect(self.path)
            # Seen before opening: a file made or replaced during the call shows as a difference at the next look.
            self._file = before
        raise sqlite3.OperationalError("the file is replaced faster than it can be opened")

    def _drop(self) -> None:
        """SQLite notices by itself when the file was moved, and then leaves the new file's WAL alone."""
        connection, self._connection, self._file = self._connection, None, None
        if connection is not None:
            connection.close()

    @contextlib.contextmanager
    def _alone(self, deadline: float) -> Iterator[None]:
        """One thread at a time; waiting for another thread counts towards the deadline."""
        if self._pid != os.getpid():
            self._after_fork()
        left_s = min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX)
        if not self._lock.acquire(timeout=left_s):
            raise NotRecorded(f"{self.path} is being written by another thread for {self._retry_s:g} s already")
        try:
            yield
        finally:
            self._lock.release()

    def _after_fork(self) -> None:
        if self._connection is not None:
            _inherited.append(self._connection)
        self._connection, self._file = None, None
        self._lock = threading.Lock()
        self._pid = os.getpid()


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(str(path), timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA wal_autocheckpoint={_WAL_PAGES_WITHOUT_GATEWAY}")
        connection.execute("PRAGMA journal_size_limit=8388608")
        for statement in _SCHEMA:
            connection.execute(statement)
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection, synchronous: str) -> Iterator[sqlite3.Connection]:
    """Commit, or leave nothing behind: no row, and no lock either when a signal handler raises in between."""
    connection.execute(f"PRAGMA synchronous={synchronous}")
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file stands at `path` (device, inode); None for none. Opening it to ask would drop SQLite's locks."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _insert(connection: sqlite3.Connection, kind: str, stamps: list[int], bodies: list[str]) -> None:
    rows = [(kind, f'{{"ts":{ts},"values":{body}}}') for ts, body in zip(stamps, bodies)]  # noqa: B905 - Python 3.8
    connection.executemany("INSERT INTO messages(type, message) VALUES (?, ?)", rows)


def _load_last_ts(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'teg_last_ts'").fetchone()
    return row[0] if row and isinstance(row[0], int) else 0


def _store_last_ts(connection: sqlite3.Connection, ts: int) -> None:
    if not connection.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'teg_last_ts'", (ts,)).rowcount:
        connection.execute("INSERT INTO sqlite_sequence(name, seq) VALUES ('teg_last_ts', ?)", (ts,))


def _check_ts(ts: int) -> int:
    if isinstance(ts, bool) or not hasattr(ts, "__index__"):
        raise ValueError(f"ts has to be a whole number of Unix milliseconds, not {ts!r}")
    ts = operator.index(ts)
    if not EARLIEST_TS_MS <= ts <= LATEST_TS_MS:
        raise ValueError(f"ts={ts} is not in Unix milliseconds (seconds have to be multiplied by 1000)")
    return ts


def _encode_values(values: Mapping[str, Any]) -> str:
    """The JSON of `values`; raises ValueError that names the key the server could not store."""
    if not isinstance(values, dict) or not values:
        raise ValueError(f"values has to be a non-empty dict, not {values!r:.100}")
    body = "{" + ",".join(_encode_item(key, value) for key, value in values.items()) + "}"
    if len(body.encode()) > MAX_RECORD_BYTES:
        raise ValueError(f"values of {len(body.encode())} bytes; one record holds {MAX_RECORD_BYTES} at most")
    return body


def _encode_item(key: Any, value: Any) -> str:
    if not isinstance(key, str) or not key.strip() or len(key) > MAX_KEY_LENGTH:
        raise ValueError(f"a key has to be text of 1 to {MAX_KEY_LENGTH} characters, not {key!r:.100}")
    try:
        return _dump(key) + ":" + _dump(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the value of {key!r:.100} cannot be sent: {error}") from error


def _dump(value: Any) -> str:
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    text.encode()  # half a surrogate pair is text to Python, but not to the database
    return text
