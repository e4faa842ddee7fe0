"""Proving that what the server acknowledged is stored: a watermark in a client attribute, read back from its database.

A PUBACK says *queued*; a server that dies forgets its queue. A client attribute travels the same queue. ThingsBoard
takes packs of messages, free of order inside, and begins the next pack when the last is done. So: publish watermark A;
when A is read back, publish B; **when B is read back, everything acknowledged before A was published is stored.** Both
within one connection: a watermark found after a reconnect proves no more than the one before it.

The words: *accepted* (archived), *acknowledged* (PUBACK), *stored* (proven).
"""

import logging
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import orjson

from teg.domain.errors import NotConnected, Unavailable
from teg.domain.ports import AttributeSource, Clock, Session
from teg.domain.server import ATTRIBUTES

logger = logging.getLogger("gateway.proof")

#: The client attribute that carries the watermark.
WATERMARK = "teg_watermark"

#: A proof costs about 420 bytes; one after so many acknowledged bytes costs at most 4 %.
BYTES = 10_000
#: On a server that counts messages, also so many of them (a proof is four).
MESSAGES = 100
#: No more often than this, whatever flows.
SHORTEST_S = 2.0
#: A slow trickle is proven after this long: often at first, because a bad link ends connections soon, then rarely.
FIRST_S, LONGEST_S, GROWTH = 20.0, 120.0, 1.5
#: The same on a link that counts bytes; what an ended connection may send again is bounded by its bytes.
METERED_S = (900.0, 3600.0)
METERED_BYTES = 100_000
#: Where a connection ended without one proof, the next begins with one: a link that ends every connection early would
#: else prove nothing, and all since the last proof would go again each time, ever more. Until so many were made in one.
UNHURRIED_PROOFS = 2
#: The server's rule chain needs a moment between PUBACK and database.
STORING_S = 0.3
#: Live seconds without a watermark coming back, until it is said that this server keeps none.
NEVER_KEPT_S = 60.0
NO_LONGER_KEPT_S = 600.0


@dataclass(frozen=True, slots=True)
class Watermark:
    """`text` is what the attribute holds: archive, number and a nonce, so that nobody takes another's for their own."""

    archive: str
    number: int
    text: str

    @classmethod
    def fresh(cls, archive: str, number: int) -> "Watermark":
        return cls(archive, number, f"{archive}.{number}.{secrets.token_hex(3)}")

    @classmethod
    def parse(cls, text: Any) -> "Watermark | None":
        archive, _, rest = text.partition(".") if isinstance(text, str) else ("", "", "")
        number = rest.partition(".")[0]
        return cls(archive, int(number), text) if number.isdecimal() and number.isascii() else None


@dataclass(frozen=True, slots=True)
class Missing:
    """What a server that was set back may not have: `rows` archived measurements stamped within both ends."""

    first_ms: int
    last_ms: int
    rows: int

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ProofState:
    """`keeps`: this server gives watermarks back (None: not known yet). `missing`: an offer not taken up yet."""

    archive: str
    proven_mark: int
    keeps: bool | None
    missing: Missing | None


class ProofStore(Protocol):
    """What is acknowledged and unproven (`gateway_db/unproven.py`)."""

    def state(self) -> ProofState: ...

    def unproven(self) -> bool: ...

    def next_watermark(self) -> Watermark: ...

    def prove(self, mark: int) -> int: ...

    def keeps_watermarks(self, keeps: bool) -> int: ...

    def missing_since(self, mark: int | None) -> Missing | None: ...


class Acknowledgements(Protocol):
    """The publisher as the proof sees it."""

    @property
    def begun_epoch(self) -> int:
        """The connection for which what earlier ones left unproven has been dealt with."""
        ...

    @property
    def acknowledged_bytes(self) -> int: ...

    @property
    def acknowledged_publishes(self) -> int: ...


@dataclass(slots=True)
class _Round:
    """One proof under way in connection `epoch`; `first` is None until watermark A is on the server.

    `covers`: acknowledged bytes and publishes when A was made; what is acknowledged after that is the next one's.
    """

    epoch: int
    began_s: float
    covers: tuple[int, int] = (0, 0)
    on_the_way: Watermark | None = None
    first: Watermark | None = None


class StorageProof:
    """`advance()` every few seconds while `due`; one thread at a time (the queue's trigger sees to that)."""

    def __init__(
        self,
        store: ProofStore,
        session: Session,
        attributes: AttributeSource,
        publisher: Acknowledgements,
        clock: Clock,
        pause: Callable[[float], object],
        send_again: Callable[[], None],
        server_was_set_back: Callable[[], None],
        counts_messages: Callable[[], bool] = lambda: False,
        gaps_s: tuple[float, float] = (FIRST_S, LONGEST_S),
        every_bytes: int = BYTES,
    ) -> None:
        """`gaps_s`: a slow trickle is proven after the first when a connection is new, after the second later on."""
        self._first_s, self._longest_s = gaps_s
        self._every_bytes = every_bytes
        self._store = store
        self._session = session
        self._attributes = attributes
        self._publisher = publisher
        self._clock = clock
        self._pause = pause
        self._send_again = send_again
        self._server_was_set_back = server_was_set_back
        self._counts_messages = counts_messages
        self._epoch = 0
        self._round: _Round | None = None
        self._gap_s = self._first_s
        self._since_s = 0.0
        self._bytes = self._publishes = 0
        self._proofs = 0  #: in this connection
        self._hasty = False

    @property
    def due(self) -> bool:
        """True when `advance` has something to ask; cheap, asked every few seconds."""
        epoch = self._session.epoch
        if not self._session.connected or self._publisher.begun_epoch != epoch:
            return False
        if epoch != self._epoch or self._round is not None:
            return True
        return self._enough()

    def _enough(self) -> bool:
        """Is there enough to prove for what a proof costs?"""
        acknowledged = self._publisher.acknowledged_bytes - self._bytes
        waited_s = self._clock.monotonic_s() - self._since_s
        if acknowledged and self._hasty and not self._proofs:
            return True
        if not acknowledged or waited_s < SHORTEST_S:
            return False
        publishes = self._publisher.acknowledged_publishes - self._publishes
        if self._counts_messages():
            return publishes >= MESSAGES or waited_s >= self._longest_s
        return acknowledged >= self._every_bytes or waited_s >= self._gap_s

    def advance(self) -> None:
        """Publish or look for a watermark, as far as it goes without waiting long.

        Raises:
            Unavailable: no session, no answer, or the archive cannot be written; to be tried again.
        """
        if not self._session.connected or self._publisher.begun_epoch != self._session.epoch:
            return
        if self._session.epoch != self._epoch:
            self._greet(self._session.epoch)
        state = self._store.state()
        if state.keeps is False:
            self._settle()
        elif self._round is not None or self._worth_a_round(state):
            self._round = self._round or self._begin_round()
            self._go_on(self._round, state)

    def _worth_a_round(self, state: ProofState) -> bool:
        return self._enough() or (state.keeps is None and self._store.unproven())

    def _settle(self) -> None:
        self._round = None
        self._bytes, self._publishes = self._acknowledged()
        self._since_s = self._clock.monotonic_s()

    def _acknowledged(self) -> tuple[int, int]:
        return self._publisher.acknowledged_bytes, self._publisher.acknowledged_publishes

    def _greet(self, epoch: int) -> None:
        """Once a connection: what does the server show? It may have been restored, or be a new device."""
        shown = Watermark.parse(self._shown())
        state = self._store.state()
        if shown is not None and shown.archive == state.archive and not state.keeps:
            self._learn(True)
        elif state.keeps and state.proven_mark:
            self._compare(shown, state)
        if self._epoch:
            self._hasty = self._proofs < (UNHURRIED_PROOFS if self._hasty else 1)
        self._epoch, self._gap_s, self._proofs = epoch, self._first_s, 0
        self._round, self._since_s = None, self._clock.monotonic_s()

    def _compare(self, shown: Watermark | None, state: ProofState) -> None:
        if shown is not None and shown.archive != state.archive:
            logger.warning(
                "the server shows the watermark of another archive: another gateway has used this access token"
            )
        elif shown is None or shown.number < state.proven_mark:
            self._offer(None if shown is None else shown.number)

    def _offer(self, mark: int | None) -> None:
        """The server was set back: told again at once is what it was told; measurements are an operator's decision."""
        self._server_was_set_back()
        missing = self._store.missing_since(mark)
        what = "an older watermark than it had stored" if mark is not None else "no watermark where it had stored one"
        if missing is None:
            logger.warning("the server shows %s (restored, or a new device?); nothing archived is affected", what)
            return
        logger.warning(
            "the server shows %s: it was restored from a backup, or the device was created anew. %d archived"
            " measurements may be missing there; to send them again: archive_republish_messages"
            ' {"start_timestamp_ms": %d, "end_timestamp_ms": %d}',
            what,
            missing.rows,
            missing.first_ms,
            missing.last_ms,
        )

    def _begin_round(self) -> _Round:
        return _Round(self._epoch, self._clock.monotonic_s())

    def _go_on(self, this: _Round, state: ProofState) -> None:
        if this.on_the_way is None:
            this.covers = self._acknowledged()
            this.on_the_way = self._publish()
        while self._is_back(this.on_the_way):
            if self._lost(this):
                return
            if this.first is not None:
                self._proven(this.first, this.covers)
                return
            if not state.keeps:
                self._learn(True)
            this.first, this.on_the_way = this.on_the_way, self._publish()
        self._doubt(this, state)

    def _lost(self, this: _Round) -> bool:
        if self._session.epoch == this.epoch and self._session.connected:
            return False
        self._round = None
        return True

    def _publish(self) -> Watermark:
        watermark = self._store.next_watermark()
        self._session.deliver(ATTRIBUTES, orjson.dumps({WATERMARK: watermark.text}))
        return watermark

    def _is_back(self, watermark: Watermark) -> bool:
        self._pause(STORING_S)
        return bool(self._shown() == watermark.text)

    def _shown(self) -> Any:
        """None when there is none, or no answer: a plain broker has none to give."""
        try:
            client, _ = self._attributes.request_attributes(client_keys=(WATERMARK,))
        except NotConnected:
            raise
        except Unavailable:
            return None
        return client.get(WATERMARK)

    def _proven(self, first: Watermark, covers: tuple[int, int]) -> None:
        self._settle()
        self._bytes, self._publishes = covers
        self._proofs += 1
        self._gap_s = min(self._gap_s * GROWTH, self._longest_s)
        self._store.prove(first.number)

    def _doubt(self, this: _Round, state: ProofState) -> None:
        limit_s = NO_LONGER_KEPT_S if state.keeps else NEVER_KEPT_S
        if self._lost(this) or self._clock.monotonic_s() - this.began_s < limit_s:
            return
        self._learn(False)
        logger.warning(
            "the server does not give back the client attribute %s (its rule chain stores none?): 'acknowledged' is all"
            " that can be known here, and a server that crashes may lose what it acknowledged",
            WATERMARK,
        )
        self._settle()

    def _learn(self, keeps: bool) -> None:
        rows = self._store.keeps_watermarks(keeps)
        if rows:
            logger.info(
                "%d records were acknowledged on a connection that ended and not proven stored: sent again", rows
            )
            self._send_again()
