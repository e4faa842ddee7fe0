"""A real `huey_consumer gateway.huey` process in a directory of its own, and the inbox beside it."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parents[2]
#: Nobody listens there: a connection is refused at once.
CLOSED_PORT = 1
CONSUMER = Path(sys.executable).parent / "huey_consumer"


def wait_until(condition: Callable[[], object], timeout_s: float, what: str) -> None:
    """Poll until `condition()` is true; fails with `what` at the deadline."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.02)


def own_address() -> str:
    """An address of this machine that no other process uses: a server that must be told its port may have any there.

    A port that was found free may be taken by another process before the server has it.
    """
    pid = os.getpid()
    return f"127.{64 + (pid >> 16)}.{pid >> 8 & 255}.{pid & 255}"


def remove_tree(directory: Path) -> None:
    """`rm -rf` beside a process that may make a file of it anew, or remove one itself, in the middle."""
    for _ in range(100):
        with suppress(OSError):
            shutil.rmtree(directory)
            return
    raise AssertionError(f"{directory} cannot be removed")


def noted_connections(monkeypatch: pytest.MonkeyPatch) -> list[sqlite3.Connection]:
    """Every SQLite connection that is opened from now on."""
    opened: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def noted(*arguments: Any, **options: Any) -> sqlite3.Connection:
        opened.append(connect(*arguments, **options))
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", noted)
    return opened


def assert_closed(connections: list[sqlite3.Connection]) -> None:
    for connection in connections:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.total_changes  # noqa: B018 - the cheapest use


class RunningGateway:
    """`start`, `kill`, `stop` a real consumer; its output is in `log_path`."""

    def __init__(self, directory: Path, host: str, port: int, token: str, **environment: str) -> None:
        self.directory = directory
        self.data_path = directory / "data"
        self.controller_path = directory / "controller"
        for path in (self.data_path, self.controller_path):
            path.mkdir(parents=True, exist_ok=True)
        self.token_path = directory / "token"
        if token:
            self.token_path.write_text(token)
            self.token_path.chmod(0o600)
        self.inbox_path = self.controller_path / "communication_queue.db"
        self.log_path = directory / "gateway.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.prefix: list[str] = []  #: what becomes the consumer, as `nsenter` and `setpriv` do
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "TB_HOST": host,
            "TB_PORT": str(port),
            "TB_TLS": "off",
            "THINGSBOARD_ACCESS_TOKEN": str(self.token_path),
            "TEG_DATA_PATH": str(self.data_path),
            "TEG_CONTROLLER_DATA_PATH": str(self.controller_path),
            "TEG_CONTROLLER_RUNTIME": "none",
            **environment,
        }

    def __enter__(self) -> "RunningGateway":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        if error is not None:
            print(self.log()[-8000:])

    def start(self, *arguments: str, target: str = "gateway.huey") -> None:
        assert self.process is None, "already started"
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, CONSUMER, *arguments, target], cwd=PROJECT, env=self.environment, stdout=log, stderr=log
            )

    def stop(self, with_signal: signal.Signals = signal.SIGTERM, timeout_s: float = 30.0) -> int:
        """Stop gracefully and return the exit code."""
        assert self.process is not None
        self.process.send_signal(with_signal)
        code = self.process.wait(timeout_s)
        self.process = None
        return code

    def kill(self) -> None:
        """kill -9, if it still runs."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def wait_exit(self, timeout_s: float = 20.0) -> int:
        assert self.process is not None
        code = self.process.wait(timeout_s)
        self.process = None
        return code

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def wait_log(self, text: str, timeout_s: float = 20.0) -> None:
        wait_until(lambda: text in self.log(), timeout_s, f"'{text}' in the gateway's log")

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        """Read from gateway.db; empty while there is no such table yet."""
        path = self.data_path / "gateway.db"
        if not path.exists():
            return []
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
        try:
            return connection.execute(sql).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return []
            raise
        finally:
            connection.close()

    def archived(self) -> int:
        return int(str((self.rows("SELECT count(*) FROM record WHERE kind = 0") or [(0,)])[0][0]))


class ControllerInbox:
    """The controller's side of the inbox, as controllers in the field do it: autocommit, 5 s time-out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.connection = sqlite3.connect(path, isolation_level=None, timeout=5.0, check_same_thread=False)
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute(
            "CREATE TABLE IF NOT EXISTS messages (id INTEGER PRIMARY KEY AUTOINCREMENT, type text, message text)"
        )
        self.connection.execute(
            "CREATE TABLE IF NOT EXISTS health_check (id INTEGER PRIMARY KEY, timestamp_ms INTEGER)"
        )

    def insert(self, message: object, row_type: object = "measurement") -> None:
        self.connection.execute("INSERT INTO messages (type, message) VALUES (?, ?)", (row_type, message))

    def insert_many(self, messages: Iterable[object], row_type: object = "measurement") -> None:
        self.connection.execute("BEGIN")
        try:
            self.connection.executemany(
                "INSERT INTO messages (type, message) VALUES (?, ?)", ((row_type, message) for message in messages)
            )
            self.connection.execute("COMMIT")
        except BaseException:
            if self.connection.in_transaction:  # a later COMMIT would bring in what was said to be refused
                self.connection.execute("ROLLBACK")
            raise

    def heartbeat(self, timestamp_ms: int) -> None:
        self.connection.execute("INSERT OR REPLACE INTO health_check (id, timestamp_ms) VALUES (1, ?)", (timestamp_ms,))

    def count(self) -> int:
        return int(self.connection.execute("SELECT count(*) FROM messages").fetchone()[0])

    def close(self) -> None:
        self.connection.close()


def measurements(first: int, last: int, start_ms: int = 1_767_225_600_000) -> Mapping[tuple[str, int], int]:
    """Expected points {("n", ts): n} of the records `message(n)` for n in first..last."""
    return {("n", start_ms + number): number for number in range(first, last + 1)}


def message(number: int, start_ms: int = 1_767_225_600_000) -> str:
    return f'{{"ts": {start_ms + number}, "values": {{"n": {number}}}}}'
