"""What of the archived records goes to the server, where `TEG_REPORT` says that not all of it does.

Decided by the publisher before it sends, in the order of the archive, never while archiving: the archive has every
record. Each record goes as it is, goes with some of its keys, or is *held*; what windows come to are records of the
gateway's own. All that follows from a decision is one transaction, and nothing is sent before it; what it says of open
windows is only where they begin, because their records are in the archive and are read again at a start. So a crash
repeats decisions and loses none.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

from teg.domain.errors import Refused
from teg.domain.ports import Clock
from teg.domain.telemetry.backlog import Row, Rows
from teg.domain.telemetry.ports import Stream
from teg.domain.telemetry.report_rules import EVERY_RECORD, ReportRules, Strategy, Way, parse_report
from teg.domain.telemetry.report_windows import LastTold, Point, Windows
from teg.domain.telemetry.scaling import shown
from teg.domain.telemetry.thinning_ports import Decisions, KeyMemory, Memory, ThinningStore, Undecided
from teg.domain.telemetry.window_records import own_records

logger = logging.getLogger("gateway.report")

READ_ROWS = 2000
#: Held records leave the outbox together, because each time costs a write: so many, or so long after the first.
HELD_TOGETHER, HELD_WITHIN_S = 500, 10.0
#: Keys that something is remembered of; of one more the oldest is forgotten, which sends more, not less.
MAX_KEYS = 5_000
#: A key that gets `_mean` added must not become longer than the server takes (255 UTF-16 units).
MAX_SUFFIXED = 120
MAX_SAID = 20
#: After a failure of the archive the next look is this far away.
TRY_AGAIN_S = 10.0


class Thinner:
    """Used by the publisher, one thread at a time; `due` may be asked from any."""

    def __init__(
        self,
        rules: ReportRules,
        store: ThinningStore,
        clock: Clock,
        scale: Callable[[str, object], object] = lambda _, value: value,
    ) -> None:
        """`scale` makes of a key's value what the server gets. Without rules only what earlier ones began is ended."""
        self.active = bool(rules)
        self._rules = rules
        self._store = store
        self._clock = clock
        self._scale = scale
        self._known: dict[str, Strategy | Windows | LastTold] = {}
        self._pending = Decisions(0)
        self._points: list[Point] = []
        self._decided_id = 0  #: as far as it is decided; not all of it may be written
        self._sendable = False  #: something that was decided and not written goes
        self._gathered_s = 0.0
        self._next_s = -math.inf
        self._begun = False
        self._said: set[str] = set()
        self.upto_id = 0  #: rows up to here may be sent

    @property
    def due(self) -> bool:
        """Is there something to close or to write although no record came?"""
        return self._clock.monotonic_s() >= self._next_s

    @property
    def _news(self) -> bool:
        pending = self._pending
        return bool(pending.held or pending.cut or pending.keys or self._points)

    def decide(self) -> bool:
        """Decide on the next rows; True when there may be more.

        Raises:
            Unavailable: the archive cannot be used now; nothing that is not written is sent.
        """
        self._next_s = self._clock.monotonic_s() + TRY_AGAIN_S
        if not self._begun:
            self._begin()
        more = self.active and self._decide_next()
        self._plan()
        return more

    def close_all(self) -> None:
        """Tell what open windows come to, as far as they go: a set clock is about to move the records that wait."""
        if not self._begun:
            self._begin()
        for key, known in list(self._known.items()):
            if isinstance(known, Windows):
                self._drop(key)
        self._write()

    # --- a record ------------------------------------------------------------------------------------------

    def _decide_next(self) -> bool:
        rows = self._store.undecided(self._decided_id, READ_ROWS)
        if not self._news:
            self._gathered_s = self._clock.monotonic_s()
        for row in rows:
            self._decide(row)
        if rows:
            self._decided_id = rows[-1].id
        else:
            self._close_over()
        self._write_if_due()
        return bool(rows)

    def _decide(self, row: Undecided) -> None:
        values = _values(row)
        keys = None if values is None else [key for key, value in values.items() if self._goes(row, key, value)]
        if values is not None and keys is not None and len(keys) < len(values):
            if keys:
                self._pending.cut.append((row.id, keys))
            else:
                self._pending.held.append(row.id)
        self._sendable = self._sendable or keys is None or bool(keys)

    def _goes(self, row: Undecided, key: str, value: Any) -> bool:
        known = self._known.get(key)
        if known is None:
            known = self._meet(key)
        if isinstance(known, Windows):
            return self._outside(row, known, value)
        if isinstance(known, LastTold):
            return self._changed(row, key, known, value)
        return known.way is Way.ALL

    def _outside(self, row: Undecided, windows: Windows, value: Any) -> bool:
        """Into its window with it, if it is of a kind that can be summed up."""
        if not windows.takes(value):
            self._say(windows)
            return True
        first_id = windows.first_id
        self._points += windows.add(row.id, row.ts_ms, value, self._clock.monotonic_s())
        if windows.first_id != first_id:
            self._pending.keys[windows.key] = KeyMemory(first_id=windows.first_id)
        return False

    def _changed(self, row: Undecided, key: str, told: LastTold, value: Any) -> bool:
        goes = told.goes(row.ts_ms, value)
        if goes:
            self._pending.keys[key] = KeyMemory(ts_ms=told.ts_ms, value=told.value)
        return goes

    def _meet(self, key: str) -> Strategy | Windows | LastTold:
        if len(self._known) >= MAX_KEYS:
            self._drop(next(iter(self._known)))
        known = self._known[key] = _fresh(key, self._rules.of(key))
        return known

    def _drop(self, key: str) -> None:
        known = self._known.pop(key)
        if isinstance(known, Windows):
            self._points += known.close_all()
        if not isinstance(known, Strategy):
            self._pending.keys[key] = None

    def _say(self, windows: Windows) -> None:
        """Once a key, and for a few keys: a controller can make up any number."""
        if windows.key in self._said or len(self._said) >= MAX_SAID:
            return
        self._said.add(windows.key)
        logger.warning(
            "TEG_REPORT asks for the %s of '%s', whose value is no number: it is sent as it is. Use last or change",
            " and ".join(windows.strategy.figures),
            shown(windows.key),
        )

    # --- windows whose time is over ------------------------------------------------------------------------

    def _close_over(self) -> None:
        now_ms, now_s = self._clock.now_ms(), self._clock.monotonic_s()
        for windows in self._windows():
            if points := windows.close_over(now_ms, now_s):
                self._points += points
                first_id = windows.first_id
                self._pending.keys[windows.key] = None if first_id is None else KeyMemory(first_id=first_id)

    def _windows(self) -> Iterator[Windows]:
        return (known for known in self._known.values() if isinstance(known, Windows))

    def _plan(self) -> None:
        """When there will be something to do, if no record comes."""
        now_ms, now_s = self._clock.now_ms(), self._clock.monotonic_s()
        next_s = min((now_s + windows.over_in_s(now_ms, now_s) for windows in self._windows()), default=math.inf)
        self._next_s = min(next_s, self._gathered_s + HELD_WITHIN_S) if self._news else next_s

    # --- writing -------------------------------------------------------------------------------------------

    def _write_if_due(self) -> None:
        if not self._news:
            self.upto_id, self._sendable = self._decided_id, False
            return
        waited_s = self._clock.monotonic_s() - self._gathered_s
        many = len(self._pending.held) >= HELD_TOGETHER
        if self._sendable or self._points or many or waited_s >= HELD_WITHIN_S:
            self._write()

    def _write(self) -> None:
        self._pending.upto_id = self._decided_id
        self._pending.own = own_records(self._points, self._scale)
        try:
            self._store.write(self._pending)
        except BaseException:
            self._begun = False  # it may be written or not: what holds is read again
            raise
        self._pending, self._points, self._sendable = Decisions(self._decided_id), [], False
        self.upto_id = self._decided_id

    # --- a start -------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """What was decided and not written is decided again; open windows are filled from the archive."""
        memory = self._store.memory()
        self._known, self._points, self._sendable = {}, [], False
        self._pending = Decisions(memory.upto_id)
        self._decided_id = self.upto_id = memory.upto_id
        changed = memory.rules != self._rules.text
        self._remember(memory, _as_written(memory.rules) if changed else self._rules)
        if changed:
            self._settle(memory)
        self._begun = True

    def _settle(self, memory: Memory) -> None:
        """The rules are others now: what the old ones had begun is told, and nothing of them is remembered."""
        for windows in self._windows():
            self._points += windows.close_all()
        self._known = {}
        self._pending.keys = dict.fromkeys(memory.keys)
        self._pending.rules = self._rules.text
        self._write()

    def _remember(self, memory: Memory, rules: ReportRules) -> None:
        for key, kept in memory.keys.items():
            known = self._known[key] = _fresh(key, rules.of(key))
            if isinstance(known, LastTold):
                known.ts_ms, known.value = kept.ts_ms, kept.value
        begins = {key: kept.first_id for key, kept in memory.keys.items() if kept.first_id is not None}
        if begins:
            self._fill(begins, memory.upto_id)

    def _fill(self, begins: Mapping[str, int], upto_id: int) -> None:
        next_id, now_s = min(begins.values()), self._clock.monotonic_s()
        while next_id <= upto_id and (rows := self._store.archived(next_id, upto_id, READ_ROWS)):
            for row in rows:
                self._fill_with(row, begins, now_s)
            next_id = rows[-1].id + 1

    def _fill_with(self, row: Undecided, begins: Mapping[str, int], now_s: float) -> None:
        for key, value in (_values(row) or {}).items():
            known = self._known.get(key)
            if isinstance(known, Windows) and row.id >= begins.get(key, row.id + 1) and known.takes(value):
                self._points += known.add(row.id, row.ts_ms, value, now_s)


class DecidedRows:
    """The outbox without the records that are not decided yet."""

    def __init__(self, outbox: Rows, thinner: Thinner) -> None:
        self._outbox, self._thinner = outbox, thinner

    def pending(self, lane: Stream, after_id: int, max_rows: int, max_bytes: int) -> list[Row]:
        if lane != Stream.DATA or not self._thinner.active:
            return self._outbox.pending(lane, after_id, max_rows, max_bytes)
        if after_id >= self._thinner.upto_id:
            return []
        rows = self._outbox.pending(lane, after_id, max_rows, max_bytes)
        return [row for row in rows if row[0] <= self._thinner.upto_id]

    def newest(self, lane: Stream) -> int:
        newest = self._outbox.newest(lane)
        return min(newest, self._thinner.upto_id) if lane == Stream.DATA and self._thinner.active else newest


def _fresh(key: str, strategy: Strategy) -> Strategy | Windows | LastTold:
    if strategy.way is Way.CHANGE:
        return LastTold(strategy)
    if strategy.way is Way.WINDOW and (len(strategy.figures) == 1 or len(key) <= MAX_SUFFIXED):
        return Windows(key, strategy)
    return EVERY_RECORD if strategy.way is Way.WINDOW else strategy


def _values(row: Undecided) -> dict[str, Any] | None:
    """None: the record goes as it is, whatever the rules say."""
    if not row.kept:
        return None
    try:
        values = orjson.loads(row.text)["values"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    return values if isinstance(values, dict) and values else None


def _as_written(text: str) -> ReportRules:
    """Rules of an earlier life; what this version cannot read any more had nothing to be told."""
    try:
        return parse_report(text)
    except Refused:
        return ReportRules()
