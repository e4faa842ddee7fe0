"""One gateway of a simulated fleet: archive, session, publisher and proof as in the real one, without controller."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from teg.adapters.clock import SystemClock
from teg.adapters.gateway_db import outbox, state
from teg.adapters.gateway_db.database import Database
from teg.adapters.gateway_db.outbox import RecordTable
from teg.adapters.gateway_db.unproven import UnprovenTable
from teg.adapters.mqtt_session import MqttSession, Server
from teg.domain.errors import NotConnected, Unavailable
from teg.domain.server import Pacer
from teg.domain.server.attributes import ServerAttributes
from teg.domain.server.rate_limits import Limits, parse_limits
from teg.domain.server.reconnect import ConnectionPolicy
from teg.domain.telemetry.ports import Stream
from teg.domain.telemetry.publisher import Publisher
from teg.domain.telemetry.storage_proof import StorageProof
from teg.domain.telemetry.validation import Record

logger = logging.getLogger("gateway.fleet")

RETRY_S = 1.0
_RECORD = '{"ts":%d,"values":{"n":%d,"temperature":21.5,"humidity":48.25}}'


class SendCounter(MqttSession):
    """The session, counting what goes through it: records by their time stamps."""

    publishes = records = 0

    def publish(self, topic: str, payload: bytes, on_done: Callable[[bool], None]) -> None:
        super().publish(topic, payload, on_done)
        self.publishes += 1
        self.records += payload.count(b'{"ts":')


class Member:
    """Threads: paho's, the session's and one that publishes; `prove` is called from outside."""

    def __init__(self, directory: Path, server: Server, token: str) -> None:
        directory.mkdir(parents=True)
        self.recorded = 0
        self._ts_ms = 0
        self._stopping = threading.Event()
        self._work = threading.Event()
        self._database = Database(directory / "gateway.db")
        self._database.open(outbox.SCHEMA, state.SCHEMA)
        self._records = RecordTable(self._database)
        self._clock, self._pacer = SystemClock(), Pacer()
        self.session = SendCounter(
            server, lambda: token, lambda _topic, _payload: None, self._work.set, ConnectionPolicy(), pacer=self._pacer
        )
        self._publisher = Publisher(self._records, self.session, self._clock, pacer=self._pacer)
        self._attributes = ServerAttributes(self.session)
        self._proof = StorageProof(
            store=UnprovenTable(self._database),
            session=self.session,
            attributes=self._attributes,
            publisher=self._publisher,
            clock=self._clock,
            pause=self._stopping.wait,
            send_again=self._publisher.read_again,
            server_was_set_back=lambda: None,
            counts_messages=self._pacer.counts_messages,
        )
        self._thread = threading.Thread(target=self._publish, name="fleet-publisher", daemon=True)

    def start(self) -> None:
        self.session.start()
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._work.set()
        self.session.stop()
        self._thread.join(10)
        self._database.close()

    def record(self, count: int) -> None:
        """As the recorder does after it has read `count` rows out of an inbox, one a second until now."""
        first = max(self._ts_ms + 1, int(time.time() * 1000) - 1000 * (count - 1))
        times = range(first, first + 1000 * count, 1000)
        self._ts_ms = times[-1]
        numbers = range(self.recorded + 1, self.recorded + count + 1)
        rows = [Record(n, ts, 3, _RECORD % (ts, n), None, False) for n, ts in zip(numbers, times, strict=True)]
        self._records.store(rows, [], None)
        self.recorded += count
        if not self._publisher.signal.notify():
            self._work.set()

    @property
    def drained(self) -> bool:
        return not self._records.newest(Stream.DATA)

    def prove(self) -> None:
        """Where it is due; a connection that ends meanwhile is nothing new."""
        try:
            if self._proof.due:
                self._proof.advance()
        except Unavailable as reason:
            logger.debug("no proof now: %s", reason)

    def _publish(self) -> None:
        """What the queue does with `publish_records` and `read_limits` in the real gateway."""
        epoch = 0
        while not self._stopping.is_set():
            self._work.wait()
            self._work.clear()
            try:
                if epoch != self.session.epoch:
                    self._read_limits()
                    epoch = self.session.epoch
                self._publisher.run(self._stopping.is_set)
            except NotConnected:
                continue  # the next connection sets the work to do
            except Unavailable as reason:
                logger.warning("%s; trying again in %.0f s", reason, RETRY_S)
                self._stopping.wait(RETRY_S)
                self._work.set()

    def _read_limits(self) -> None:
        now_s = self._clock.monotonic_s
        try:
            self._pacer.use(parse_limits(self._attributes.request_limits()), now_s())
        except NotConnected:
            raise
        except Unavailable:
            self._pacer.use(Limits(), now_s())
