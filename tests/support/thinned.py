"""An archive whose records are thinned on their way to a server that keeps (key, time) → value, as ThingsBoard does."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from teg.adapters.gateway_db.thinned import ThinnedOutbox
from teg.domain.errors import Unavailable
from teg.domain.telemetry.ports import Delivery, Stream
from teg.domain.telemetry.report_rules import parse_report
from teg.domain.telemetry.thinning import DecidedRows, Thinner
from teg.domain.telemetry.thinning_ports import Decisions
from teg.domain.telemetry.validation import Record
from tests.support.links import FakeClock
from tests.support.outboxes import TS, Archive

__all__ = ["TS", "BreakingStore", "ThinnedSite", "measured"]

Values = Mapping[str, Any]


def measured(ts_ms: int, values: Values, log: bool = False) -> Record:
    text = orjson.dumps({"ts": ts_ms, "values": values}).decode()
    return Record(1, ts_ms, len(values), text, None, log)


class BreakingStore(ThinnedOutbox):
    """Fails before or after the next commit, when told to."""

    fails = ""

    def write(self, decisions: Decisions) -> None:
        fails, self.fails = self.fails, ""
        if fails == "before":
            raise Unavailable("planted")
        super().write(decisions)
        if fails == "after":
            raise Unavailable("planted")


class ThinnedSite:
    """`publish` is what the publisher does, without its window: decide, send, mark."""

    def __init__(self, path: Path, rules: str) -> None:
        self.archive = Archive(path)
        self.store = BreakingStore(self.archive.database)
        self.clock = FakeClock()
        self.server: dict[tuple[str, int], Any] = {}
        self.sent: list[tuple[int, Values]] = []
        self.rules = rules
        self.restart()

    def restart(self, rules: str | None = None) -> None:
        """A new life of the gateway on the same files: what was in memory alone is gone."""
        self.rules = self.rules if rules is None else rules
        self.thinner = Thinner(parse_report(self.rules), self.store, self.clock)
        self._rows = DecidedRows(self.archive.table, self.thinner)

    def close(self) -> None:
        self.archive.database.close()

    def record(self, *records: tuple[int, Values], log: bool = False) -> None:
        self.archive.table.store([measured(ts_ms, values, log) for ts_ms, values in records], [], None)

    def decide(self) -> None:
        while self.thinner.decide():
            pass

    def publish(self, mark: bool = True) -> None:
        self.decide()
        self.send(mark)

    def send(self, mark: bool = True) -> None:
        for lane in Stream:
            rows = self._rows.pending(lane, 0, 1 << 20, 1 << 40)
            for _, points, _, text in rows:
                self._receive(text, points)
            if rows and mark:
                kept = any(row[2] for row in rows)
                self.archive.table.mark_published([Delivery(lane, [row[0] for row in rows], kept)])

    def _receive(self, text: bytes, points: int) -> None:
        body = orjson.loads(text)
        assert points == len(body["values"]) > 0
        self.sent.append((body["ts"], body["values"]))
        for key, value in body["values"].items():
            self.server[key, body["ts"]] = value

    def later(self, seconds: float = 200_000.0) -> None:
        """So long that every window is over."""
        self.publish()
        self.clock.advance(seconds)
        self.publish()

    @property
    def held(self) -> int:
        return int(self.archive.counts()["held"])

    def told(self, key: str) -> list[Any]:
        return [value for _, value in sorted((ts, value) for (name, ts), value in self.server.items() if name == key)]

    def times(self, key: str) -> Sequence[int]:
        return sorted(ts - TS for name, ts in self.server if name == key)
