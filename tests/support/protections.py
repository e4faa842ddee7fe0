"""The protections of a record on the device, each with the switch that takes it out; tests alone reach it.

docs/reliability.md has them as a table; `tests/faults/test_protections.py` compares the two, and runs each scenario
with its protection (nothing is lost) and without (the books say what is).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from sqlite3 import Connection
from typing import Any

import pytest

from tasks import consumer
from tasks.huey_app import GatewayHuey
from teg.adapters.ballast import Ballast
from teg.adapters.gateway_db import database, outbox, quarantine, unproven
from teg.adapters.gateway_db.connections import LastIds
from teg.adapters.gateway_db.database import Database
from teg.adapters.gateway_db.marker import Marker
from teg.adapters.gateway_db.names import Names
from teg.adapters.gateway_db.open_files import OpenFiles
from teg.adapters.inbox import queue_file, reader
from teg.domain.errors import Unavailable
from teg.domain.telemetry import legacy_import
from teg.domain.telemetry.backlog import Batch
from teg.domain.telemetry.ingest import Batch as InboxBatch
from teg.domain.telemetry.ingest import Recorder
from teg.domain.telemetry.ports import Delivery
from teg.domain.telemetry.publisher import Publisher
from teg.domain.telemetry.retention import Retention
from tests.support import loss_scenarios as scenarios

Patch = pytest.MonkeyPatch


@dataclass(frozen=True, slots=True)
class Protection:
    """`name` and `where` as in the table; `take_out` is the switch."""

    name: str
    where: str
    scenario: scenarios.Scenario
    take_out: Callable[[Patch], None]
    proofs: bool = False  #: the server of the scenario proves what it has stored
    needs_root: bool = False


def _nothing(*_: object, **__: object) -> None:
    return None


def without_waiting_for_the_puback(patch: Patch) -> None:
    send = Publisher._send

    def marked_first(self: Publisher, batch: Batch) -> None:
        self._outbox.mark_published(batch.published().deliveries)
        send(self, batch)

    patch.setattr(Publisher, "_send", marked_first)


def delete_before_archiving(patch: Patch) -> None:
    store = Recorder._store

    def emptied_first(self: Recorder, batch: InboxBatch) -> int:
        self._inbox.delete(batch.rows)
        return store(self, batch)

    patch.setattr(Recorder, "_store", emptied_first)


def without_meeting_rows_again(patch: Patch) -> None:
    def known_already(self: Recorder, generation: int) -> int:
        self._known = generation
        return 1

    patch.setattr(Recorder, "_meet", known_already)


def without_the_identity_of_the_archive(patch: Patch) -> None:
    patch.setattr(OpenFiles, "verify", _nothing)


def without_generation_and_content(patch: Patch) -> None:
    ask = reader.HostileFile.ask

    def of_any_file(self: reader.HostileFile, request: bytes, **options: Any) -> tuple[int, bytes] | None:
        return ask(self, request, **options | {"generation": None})

    patch.setattr(reader.HostileFile, "ask", of_any_file)
    patch.setattr(queue_file.Rows, "compare", _nothing)


def from_the_first_id_to_the_last(patch: Patch) -> None:
    def one_run(ids: Sequence[int]) -> list[tuple[int, int]]:
        return [(ids[0], ids[-1])] if ids else []

    patch.setattr(unproven, "id_runs", one_run)


def taken_over_by_number_alone(patch: Patch) -> None:
    patch.setattr(legacy_import, "_marks", lambda rows: {row[0]: b"" for row in rows})


def without_the_marker(patch: Patch) -> None:
    patch.setattr(Marker, "read", lambda _: {})


def without_quarantine(patch: Patch) -> None:
    patch.setattr(Database, "check", _nothing)
    patch.setattr(Database, "_replace_if_broken", _nothing)


def without_sending_the_unproven_again(patch: Patch) -> None:
    patch.setattr(unproven.UnprovenTable, "connection_ended", lambda _: 0)


def with_ids_from_the_beginning(patch: Patch) -> None:
    patch.setattr(LastIds, "skip", _nothing)


def without_looking_for_a_log(patch: Patch) -> None:
    patch.setattr(quarantine, "orphan_log", lambda _: False)


def without_the_saved_copy(patch: Patch) -> None:
    patch.setattr(Names, "finish_interrupted", _nothing)


def counted_as_sent(patch: Patch) -> None:
    remove = outbox._remove_from_outbox

    def all_of_them(connection: Connection, delivery: Delivery) -> Sequence[int]:
        remove(connection, delivery)
        return delivery.ids

    patch.setattr(outbox, "_remove_from_outbox", all_of_them)


def without_fsync(patch: Patch) -> None:
    @contextmanager
    def never(connection: Connection, durable: bool) -> Iterator[None]:
        connection.execute("PRAGMA synchronous=NORMAL")
        yield

    patch.setattr(database, "commit_level", never)


def without_tasks_in_memory(patch: Patch) -> None:
    def refused(self: GatewayHuey, task: Any, reason: Unavailable) -> None:
        raise reason

    patch.setattr(GatewayHuey, "_keep", refused)


def without_ballast(patch: Patch) -> None:
    patch.setattr(Ballast, "let_go", _nothing)


def quota_by_the_hour(patch: Patch) -> None:
    def hourly(self: Retention) -> bool:
        return self._clock.monotonic_s() >= self._next_s

    patch.setattr(Retention, "due", property(hourly))


def timetable_by_the_wall_clock(patch: Patch) -> None:
    def loop(self: consumer.TimetableScheduler, now: Any = None) -> None:
        for entry in self.huey.timetable:
            entry.tick(vars(consumer)["time"].time() / 1000, self.huey.trigger)

    patch.setattr(consumer.TimetableScheduler, "loop", loop)


PROTECTIONS = (
    Protection(
        "marked when the PUBACK is there",
        "Publisher._take",
        scenarios.connection_ends_before_the_puback,
        without_waiting_for_the_puback,
    ),
    Protection(
        "archived before it leaves the inbox",
        "Recorder._store",
        scenarios.kill_while_a_batch_is_archived,
        delete_before_archiving,
    ),
    Protection(
        "rows archived before are known again",
        "Recorder._meet",
        scenarios.kill_between_archive_and_inbox,
        without_meeting_rows_again,
    ),
    Protection(
        "the archive's files are those at their names",
        "OpenFiles.verify",
        scenarios.database_taken_away,
        without_the_identity_of_the_archive,
    ),
    Protection(
        "generation and content of the inbox rows",
        "HostileFile.ask, Rows.compare",
        scenarios.inbox_made_anew_while_its_rows_wait,
        without_generation_and_content,
    ),
    Protection(
        "exact ids leave the outbox",
        "unproven.id_runs",
        scenarios.acknowledged_around_a_row_that_waits,
        from_the_first_id_to_the_last,
    ),
    Protection(
        "rows taken over are known by number and text",
        "legacy_import._marks",
        scenarios.second_take_over_of_a_database_made_anew,
        taken_over_by_number_alone,
    ),
    Protection("the marker", "Marker", scenarios.database_emptied_between_two_lives, without_the_marker),
    Protection(
        "quick check and quarantine",
        "Database.check, _replace_if_broken",
        scenarios.page_of_the_outbox_overwritten,
        without_quarantine,
    ),
    Protection(
        "what is not proven is sent again",
        "UnprovenTable.connection_ended",
        scenarios.server_forgets_what_it_acknowledged,
        without_sending_the_unproven_again,
        proofs=True,
    ),
    Protection(
        "ids of a fresh file lie beyond the old ones",
        "LastIds.skip",
        scenarios.acknowledgement_for_a_row_of_the_old_file,
        with_ids_from_the_beginning,
    ),
    Protection(
        "a log without its database is kept from SQLite",
        "quarantine.orphan_log",
        scenarios.database_removed_and_its_log_left,
        without_looking_for_a_log,
    ),
    Protection(
        "an interrupted rescue is finished",
        "Names.finish_interrupted",
        scenarios.kill_in_the_middle_of_a_rescue,
        without_the_saved_copy,
    ),
    Protection(
        "delivered is what was still waiting",
        "outbox._remove_from_outbox",
        scenarios.evicted_while_on_the_way,
        counted_as_sent,
    ),
    Protection(
        "an accepted row is fsynced", "Database.transaction", scenarios.power_fails, without_fsync, needs_root=True
    ),
    Protection(
        "tasks from memory while the queue is full",
        "GatewayHuey._keep",
        scenarios.queue_cannot_be_written,
        without_tasks_in_memory,
    ),
    Protection("the ballast", "Ballast.let_go", scenarios.disk_full, without_ballast, needs_root=True),
    Protection("the quota by growth", "Retention.due", scenarios.archive_grows_by_the_minute, quota_by_the_hour),
    Protection(
        "the timetable by monotonic time",
        "TimetableScheduler.loop",
        scenarios.clock_set_back,
        timetable_by_the_wall_clock,
    ),
)
