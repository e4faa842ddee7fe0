"""Changing over from the reference gateway: what it had archived, queued and logged is taken over, once.

Works in batches, each noted in the transaction that stores it, so it can be interrupted anywhere and goes on there.
A row number alone says nothing: the reference may have created its database anew. So what is noted is which rows were
taken last, by number and text; no row is skipped, and none deleted, that was not judged.
The old files stay where they are; only rows still waiting for the server leave the inbox's database.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from teg.domain.errors import Refused
from teg.domain.server import encode_telemetry
from teg.domain.telemetry.ports import fingerprint
from teg.domain.telemetry.validation import Record, SetAside, validate

logger = logging.getLogger("gateway.legacy_import")

BATCH = 1000
ARCHIVE, PENDING, LOGS = "archive", "pending", "logs"


class OldData(Protocol):
    """The reference's databases; a missing one has no rows. All ids ascend; raises Unavailable."""

    def archive(self, after_id: int, limit: int) -> list[tuple[int, Any, Any]]:
        """(id, timestamp_ms, JSON of the values) of `gateway_archive.db`."""
        ...

    def pending(self, after_id: int, limit: int) -> list[tuple[int, Any, Any]]:
        """(id, type, message) of `pending_mqtt_messages`, typed as `telemetry.ingest.Inbox.read` types them."""
        ...

    def delete_pending(self, ids: Sequence[int]) -> None: ...

    def logs(self, after_id: int, limit: int) -> list[tuple[int, Any, Any, Any]]:
        """(id, level, text, timestamp_ms) of `gateway_logs_buffer.db`."""
        ...


@dataclass(frozen=True, slots=True)
class Progress:
    """The rows of a source that were taken last, with the `fingerprint` of each.

    `begun`: something was taken before. `met_before`: this is another file, or the same from its beginning; rows of it
    may have been taken already.
    """

    rows: Mapping[int, bytes]
    begun: bool = True
    met_before: bool = False


class NewHome(Protocol):
    """Where it goes; each call is one durable transaction that also notes `progress`."""

    def progress(self, source: str) -> Progress: ...

    def take_history(self, rows: Sequence[Record], progress: Progress) -> None:
        """Archived and delivered long ago: kept, not sent. With `met_before` nothing that is there is kept twice."""
        ...

    def take_pending(self, rows: Sequence[Record], aside: Sequence[SetAside], progress: Progress) -> None:
        """Not delivered: sent. A row that came in with the history is sent from there instead of kept twice."""
        ...

    def take_logs(self, rows: Sequence[tuple[int, bytes]], progress: Progress) -> None: ...


class LegacyImport:
    """`run` is harmless when there is nothing to take over, and when everything was."""

    def __init__(self, old: OldData, home: NewHome) -> None:
        self._old = old
        self._home = home

    def run(self) -> None:
        """History first, so that waiting rows can be recognised in it.

        Raises:
            Unavailable: a database is locked or the disk fails; to be tried again, it goes on where it was.
        """
        taken = {ARCHIVE: self._take_archive(), PENDING: self._take_pending(), LOGS: self._take_logs()}
        if any(taken.values()):
            logger.info("taken over from the reference gateway: %s", taken)

    def _take_archive(self) -> int:
        total = 0
        after_id, met_before = self._go_on(ARCHIVE, self._old.archive)
        while rows := self._old.archive(after_id, BATCH):
            records = [record for row in rows if (record := _history(*row)) is not None]
            self._home.take_history(records, Progress(_marks(rows[-1:]), met_before=met_before))
            after_id = rows[-1][0]
            total += len(rows)
        return total

    def _take_pending(self) -> int:
        """What was taken and not deleted yet is at most the last batch: known again by number and text."""
        total = 0
        while rows := self._old.pending(0, BATCH):
            taken = self._home.progress(PENDING).rows
            marks = _marks(rows)
            verdicts = [validate(*row) for row in rows if taken.get(row[0]) != marks[row[0]]]
            if verdicts:
                records = [verdict for verdict in verdicts if isinstance(verdict, Record)]
                aside = [verdict for verdict in verdicts if isinstance(verdict, SetAside)]
                self._home.take_pending(records, aside, Progress(marks))
            self._old.delete_pending([row[0] for row in rows])
            total += len(verdicts)
        return total

    def _take_logs(self) -> int:
        total = 0
        after_id, _ = self._go_on(LOGS, self._old.logs)
        while rows := self._old.logs(after_id, BATCH):
            lines = [line for row in rows if (line := _log_line(*row)) is not None]
            self._home.take_logs(lines, Progress(_marks(rows[-1:])))
            after_id = rows[-1][0]
            total += len(rows)
        return total

    def _go_on(self, source: str, read: Callable[[int, int], Sequence[tuple[Any, ...]]]) -> tuple[int, bool]:
        """Behind the row that was taken last, if it still is that row; else from the first one, which may be known."""
        progress = self._home.progress(source)
        for row_id, mark in progress.rows.items():
            row = read(row_id - 1, 1)
            if _marks(row) == {row_id: mark}:
                return row_id, progress.met_before
        return 0, progress.begun


def _marks(rows: Sequence[tuple[Any, ...]]) -> dict[int, bytes]:
    return {row[0]: fingerprint(repr(tuple(row[1:])).encode(errors="surrogatepass")) for row in rows}


def _history(row_id: int, ts_ms: Any, values: Any) -> Record | None:
    """The reference archived only the values; what it could not have published is left in its file."""
    try:
        text = str(values)
        parsed = orjson.loads(text)
        if type(ts_ms) is not int or not isinstance(parsed, dict):
            raise Refused("not a record")
    except (orjson.JSONDecodeError, Refused):
        return None
    verdict = validate(row_id, None, bytearray(f'{{"ts":{ts_ms},"values":{text}}}'.encode()))
    return verdict if isinstance(verdict, Record) else None


def _log_line(row_id: int, level: Any, text: Any, ts_ms: Any) -> tuple[int, bytes] | None:
    if type(ts_ms) is not int:
        return None
    message = str(text)
    message = message if message.startswith("GATEWAY - ") else f"GATEWAY - {message}"
    return ts_ms, encode_telemetry(ts_ms, {"severity": str(level), "message": message[:2048]})
