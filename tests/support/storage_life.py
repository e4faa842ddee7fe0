"""One life of everything that a record passes on the device, without queue and network, and the books beside it.

The producer knows what it wrote, the server notes what it stored in a file of its own, the archive says what it has:
`compare` raises `LedgerError` where the three do not agree to the row.
"""

import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import orjson

from teg.adapters.clock import SystemClock
from teg.adapters.gateway_db import outbox, state
from teg.adapters.gateway_db.keeper import DatabaseKeeper
from teg.adapters.gateway_db.legacy_import import LegacyImportTable
from teg.adapters.gateway_db.maintenance import ArchiveMaintenance
from teg.adapters.gateway_db.outbox import RecordTable
from teg.adapters.gateway_db.unproven import UnprovenTable
from teg.adapters.inbox import child, directory, hostile_file, reader
from teg.adapters.inbox.legacy_databases import LegacyDatabases
from teg.adapters.inbox.mailbox import Inbox
from teg.adapters.inbox.queue_file import QueueFile
from teg.adapters.inbox.wire import Answer
from teg.domain.errors import NotConnected, Unavailable
from teg.domain.telemetry.ingest import Recorder
from teg.domain.telemetry.legacy_import import LegacyImport
from teg.domain.telemetry.publisher import Publisher
from tests.support.running import ControllerInbox, message

START_MS = 1_767_225_600_000


class LedgerError(AssertionError):
    """The books of producer, archive and server do not agree."""


class Server:
    """`publisher.Link` to a server whose database is a file of lines. `mode` is what becomes of a publish:

    `store` and acknowledge; `drop`: the connection ends instead; `queue`: acknowledged, and forgotten in a `crash`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._queue: list[bytes] = []
        self.mode = "store"
        self.connected = True
        self.closed_by_peer = False
        self.epoch = 1

    def publish(self, topic: str, payload: bytes, on_done: Callable[[bool], None]) -> None:
        if not self.connected:
            raise NotConnected("not connected")
        if self.mode == "drop":
            self.connected = False
            on_done(False)
            return
        if self.mode == "queue":
            self._queue.append(payload)
        else:
            self._store(payload)
        on_done(True)

    def deliver(self, topic: str, payload: bytes, timeout_s: float = 30.0) -> None:
        self.publish(topic, payload, lambda _: None)

    def request(self, topic: str, payload: bytes, answer_topic: str, timeout_s: float = 10.0) -> bytes:
        raise NotImplementedError

    def subscribe(self, topic_filter: str) -> None:
        raise NotImplementedError

    def crash(self) -> None:
        """What was only acknowledged is gone; the gateway connects again."""
        self._queue.clear()
        self.reconnect()

    def reconnect(self) -> None:
        self.mode, self.connected = "store", True
        self.epoch += 1

    def stalled_s(self) -> float:
        return float("inf")

    def give_up(self, reason: str) -> None:
        self.connected = False

    def reconnect_now(self) -> None: ...

    def works(self) -> None: ...

    def numbers(self) -> list[int]:
        lines = self._path.read_bytes().splitlines() if self._path.exists() else []
        records = [record for line in lines for record in orjson.loads(line)]
        return [record["values"]["n"] for record in records if "n" in record["values"]]

    def _store(self, payload: bytes) -> None:
        """In one system call."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, payload + b"\n")
        os.close(descriptor)


class ReaderInThisProcess:
    """`reader.ReaderProcess` without the process: every system call of a life is one process's, every patch reaches."""

    def __init__(self, place: Path, name: str, names: int = 1) -> None:
        self.place = directory.identity(place)
        self.layers: dict[str, str] = {}
        self._file = QueueFile(str(place / name), names)

    def ask(self, request: bytes, timeout_s: float) -> tuple[Answer, bytes]:
        answer = child.answer(self._file, request)
        return Answer(answer[0]), answer[1:]

    def end(self) -> None:
        self._file.close()

    def kill(self) -> str:
        self.end()
        return "was killed"


def read_in_this_process(replace: Callable[[object, str, object], object] = setattr) -> None:
    """The check of descriptors asks that the process holds no other files; ours has the archive's."""
    replace(reader, "ReaderProcess", ReaderInThisProcess)
    replace(reader, "BETWEEN_STARTS_S", 0.0)
    replace(hostile_file, "check_descriptors", lambda *_: None)


class Life:
    """From the opening of the files to their closing. Everything lies in `folder`: data, controller, old."""

    def __init__(self, folder: Path, server: Server, proofs: bool = False) -> None:
        inbox_path = folder / "controller" / "communication_queue.db"
        for path in (folder / "data", inbox_path.parent):
            path.mkdir(exist_ok=True)
        self.keeper = DatabaseKeeper(folder / "data" / "gateway.db", time.monotonic)
        self.keeper.open_when_possible(outbox.SCHEMA, state.SCHEMA)
        self.database = self.keeper.database
        self.records = RecordTable(self.database)
        self.unproven = UnprovenTable(self.database)
        self.maintenance = ArchiveMaintenance(self.database)
        self.inbox = Inbox(inbox_path)
        self.recorder = Recorder(self.inbox, self.records, lambda: None, idle_timeout_s=0.0)
        self.publisher = Publisher(self.records, server, SystemClock(), idle_timeout_s=0.0)
        self._proofs = proofs
        self._old = LegacyDatabases(folder / "old", inbox_path)
        self._import = LegacyImport(self._old, LegacyImportTable(self.database))

    def patiently(self, work: Callable[[], object], tries: int = 4) -> bool:
        """As the queue does it: tried again after a look at the files. False: in vain."""
        for _ in range(tries):
            with suppress(Unavailable):
                if self.keeper.care_due:
                    self.keeper.tend()
                self.unproven.keeps_watermarks(self._proofs)
                work()
                return True
        return False

    def ingest(self) -> None:
        while self.recorder.record_batch():
            pass

    def publish(self) -> None:
        self.publisher.run(lambda: False)

    def prove(self) -> None:
        mark = self.unproven.next_watermark().number
        self.unproven.prove(mark)

    def take_over(self) -> None:
        self._import.run()

    def salvage(self) -> None:
        self.keeper.salvage(lambda: False)

    def settle(self) -> None:
        """All that is left to do, as far as it can be done."""
        for _ in range(3):
            for work in (self.take_over, self.salvage, self.ingest, self.publish):
                self.patiently(work)

    def close(self) -> None:
        self._old.close()
        self.inbox.close()
        self.keeper.close()


def controller(folder: Path) -> ControllerInbox:
    return ControllerInbox(folder / "controller" / "communication_queue.db")


def produce(folder: Path, numbers: Sequence[int], nonsense: int = 0) -> None:
    with closing(controller(folder)) as inbox:
        inbox.insert_many([*(message(number, START_MS) for number in numbers), *["no message"] * nonsense])


def compare(folder: Path, server: Server, produced: Sequence[int], set_aside: int = 0, lost: int = 0) -> None:
    """Every record on the server and once in the archive, every nonsense set aside, the inbox empty, the account exact.

    `lost`: so many records were destroyed; the account has to say so.
    Raises LedgerError.
    """
    counters, archived, aside, waiting = _archive(folder / "data" / "gateway.db")
    missing = set(produced) - set(server.numbers())
    _agree("the server has every record but those said to be lost", len(missing), lost)
    archive_is, archive_should = Counter(archived), Counter(set(produced) - missing if lost else produced)
    _agree("the archive has every record once", archive_is - archive_should, Counter[int]())
    _agree("the archive lacks no record", archive_should - archive_is, Counter[int]())
    _agree("what was set aside", aside, set_aside)
    _agree("lost, as counted", counters.get("lost", 0), lost)
    account(counters, waiting)
    with closing(controller(folder)) as inbox:
        _agree("rows left in the inbox", inbox.count(), 0)


def account(counters: dict[str, int], waiting: int) -> None:
    ways = sum(counters.get(name, 0) for name in ("delivered", "held", "evicted", "lost")) + waiting
    _agree(f"accepted = delivered + pending + held + evicted + lost {counters}", ways, counters.get("accepted", 0))


def _agree(what: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise LedgerError(f"{what}: {found}, not {expected}")


def _archive(path: Path) -> tuple[dict[str, int], list[int], int, int]:
    """Counters, numbers of the records, dead letters, undelivered rows; of a database that nobody has open."""
    with closing(sqlite3.connect(path)) as connection:
        try:
            _agree("integrity of the archive", connection.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
        except sqlite3.DatabaseError as error:
            raise LedgerError(f"integrity of the archive: {error}") from error
        counters = dict(connection.execute("SELECT name, value FROM counter"))
        texts = connection.execute("SELECT CAST(message AS BLOB) FROM record WHERE kind = 0")
        numbers = [orjson.loads(text)["values"]["n"] for (text,) in texts]
        aside, waiting = connection.execute(
            "SELECT (SELECT count(*) FROM dead_letter), (SELECT count(*) FROM outbox WHERE lane = 1)"
        ).fetchone()
    return counters, numbers, aside, waiting
