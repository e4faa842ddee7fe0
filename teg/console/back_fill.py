"""`teg archive import` at work: an exported archive in a store of its own, sent from there until all is acknowledged.

The store is an archive like a gateway's, in a directory named after the file's checksum, the server and the device: an
import that was interrupted goes on where it was, and its account is exact.
"""

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from teg.adapters.clock import SystemClock
from teg.adapters.gateway_db import outbox, rpc_journal, state
from teg.adapters.gateway_db.database import Database
from teg.adapters.gateway_db.maintenance import ArchiveMaintenance
from teg.adapters.gateway_db.outbox import RecordTable
from teg.adapters.gateway_db.unproven import UnprovenTable
from teg.adapters.mqtt_session import MqttSession
from teg.domain.errors import NotConnected, Refused, Unavailable
from teg.domain.server import Pacer
from teg.domain.server.attributes import ServerAttributes
from teg.domain.server.rate_limits import Limits, parse_limits
from teg.domain.telemetry.archive_file import Row
from teg.domain.telemetry.publisher import Publisher
from teg.domain.telemetry.validation import Record, SetAside, validate

BATCH = 1000
LOOK_EVERY_S = 0.3


def directory_for(imports: Path, checksum: str, server: tuple[str, int], device: str) -> Path:
    where = hashlib.sha256(f"{server[0]}:{server[1]}:{device}".encode()).hexdigest()
    return imports / f"{checksum[:16]}-{where[:8]}"


class Store:
    """What is to be sent, and what became of it. Close it."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._database = Database(directory / "gateway.db")
        self._database.open(outbox.SCHEMA, state.SCHEMA, rpc_journal.SCHEMA)
        self.records = RecordTable(self._database)
        self.maintenance = ArchiveMaintenance(self._database)
        UnprovenTable(self._database).keeps_watermarks(False)

    def close(self) -> None:
        self._database.close()

    def counts(self) -> dict[str, int]:
        return self.maintenance.counts()

    def take(self, rows: Iterable[Row], progress: Callable[[int], None]) -> None:
        """What is not in the store yet; a record that the server would refuse is set aside, with the reason."""
        known = self._known()
        batch: list[Record | SetAside] = []
        for number, row in enumerate(rows, 1):
            if number > known:
                batch.append(validate(number, bytearray(), bytearray(row.text)))
            if len(batch) == BATCH:
                self._keep(batch)
                batch = []
                progress(number)
        if batch:
            self._keep(batch)

    def _known(self) -> int:
        """Records go in by their place in the file, in order: the last one is how far it got."""
        sql = "SELECT max(source_row) FROM (SELECT source_row FROM record UNION ALL SELECT source_row FROM dead_letter)"
        return int(self._database.rows(sql)[0][0] or 0)

    def _keep(self, batch: list[Record | SetAside]) -> None:
        records = [each for each in batch if isinstance(each, Record)]
        self.records.store(records, [each for each in batch if isinstance(each, SetAside)], left_upto=None)


class BackFill:
    """Sends what is in a store, as `device` through a gateway's session or (empty) as the session's own device."""

    def __init__(self, store: Store, connect: Callable[[Pacer], MqttSession], device: str) -> None:
        clock = SystemClock()
        self._store = store
        self._pacer = Pacer()
        self._session = connect(self._pacer)
        self._clock = clock
        self._publisher = Publisher(
            store.records, self._session, clock, idle_timeout_s=0.1, pacer=self._pacer, device=device
        )
        self._stopping = threading.Event()
        self._failure = ""

    def run(self) -> Iterator[int]:
        """Yields, now and then, how many records the server has acknowledged, until it has all of them.

        Raises:
            Refused: the server acknowledges nothing at all.
        """
        worker = threading.Thread(target=self._drain, name="back-fill", daemon=True)
        self._session.start()
        worker.start()
        try:
            while worker.is_alive():
                worker.join(LOOK_EVERY_S)
                yield self._store.counts()["delivered"]
        finally:
            self._stopping.set()
            worker.join(10.0)
            self._session.stop()
        if self._failure:
            raise Refused(self._failure)

    def _drain(self) -> None:
        while not self._stopping.is_set() and self._store.counts()["pending"]:
            if self._unheard():
                self._failure = (
                    "the server acknowledges nothing: on ThingsBoard, is the device of this token marked 'Is gateway'?"
                )
                return
            if not self._session.connected:
                self._stopping.wait(0.2)
                continue
            try:
                self._learn_limits()
                self._publisher.run(self._stopping.is_set)
            except NotConnected:
                continue  # the session makes the next connection; what was not acknowledged goes again
            except Unavailable:
                self._stopping.wait(1.0)

    def _unheard(self) -> bool:
        """We, not the server, ended a connection on which nothing was acknowledged."""
        gave_up = self._session.epoch > 0 and not self._session.connected and not self._session.closed_by_peer
        return gave_up and not self._store.counts()["delivered"]

    def _learn_limits(self) -> None:
        """A server has limits of their own for what comes through a gateway; the narrower of the two are not known."""
        if self._pacer.known:
            return
        try:
            answer = ServerAttributes(self._session).request_limits()
        except NotConnected:
            raise
        except (Unavailable, Refused):
            self._pacer.use(Limits(), self._clock.monotonic_s())
            return
        self._pacer.use(parse_limits(answer), self._clock.monotonic_s())
