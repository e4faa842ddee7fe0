"""Changing over from the reference gateway: nothing it had queued, archived or logged is lost or sent twice."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import orjson
import pytest

from teg.adapters.gateway_db import outbox as records
from teg.adapters.gateway_db import state
from teg.adapters.gateway_db.database import Database
from teg.adapters.gateway_db.legacy_import import LegacyImportTable
from teg.adapters.gateway_db.maintenance import ArchiveMaintenance
from teg.adapters.gateway_db.outbox import RecordTable
from teg.adapters.inbox.legacy_databases import LegacyDatabases
from teg.domain.errors import Unavailable
from teg.domain.telemetry.legacy_import import LegacyImport
from teg.domain.telemetry.ports import Delivery, Stream
from teg.domain.telemetry.validation import Record
from tests.support.legacy import START_MS, Reference


@pytest.fixture
def reference(tmp_path: Path) -> Iterator[Reference]:
    old = Reference(tmp_path)
    yield old
    old.close()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "gateway.db")
    database.open(records.SCHEMA, state.SCHEMA)
    yield database
    database.close()


def legacy_import(reference: Reference, database: Database) -> LegacyImport:
    return LegacyImport(LegacyDatabases(reference.directory, reference.inbox_path), LegacyImportTable(database))


def outbox(database: Database, lane: Stream) -> list[dict[str, object]]:
    return [orjson.loads(row[3]) for row in RecordTable(database).pending(lane, 0, 10_000, 1 << 30)]


def test_history_is_kept_and_not_sent(reference: Reference, database: Database) -> None:
    for number in range(2500):
        reference.archived(number)
    legacy_import(reference, database).run()
    assert ArchiveMaintenance(database).stats()["rows"] == 2500
    assert outbox(database, Stream.DATA) == []
    assert outbox(database, Stream.REPUBLISH) == []


def test_queued_rows_are_sent_once_although_they_were_archived_too(reference: Reference, database: Database) -> None:
    for number in range(10):
        reference.archived(number)
    for number in range(6, 12):  # 6..9 were archived when queued, 10 and 11 were not (a crash in between)
        reference.queued(number)
    legacy_import(reference, database).run()
    assert sorted(record["values"]["n"] for record in outbox(database, Stream.DATA)) == [6, 7, 8, 9, 10, 11]  # type: ignore[index]
    assert ArchiveMaintenance(database).stats()["rows"] == 12
    assert reference.inbox.execute("SELECT count(*) FROM pending_mqtt_messages").fetchone() == (0,)


def test_the_account_holds_after_a_takeover(reference: Reference, database: Database) -> None:
    for number in range(5):
        reference.archived(number)
    reference.queued(4)
    reference.queued(7)
    legacy_import(reference, database).run()
    counts = ArchiveMaintenance(database).counts()
    assert counts["accepted"] == counts["delivered"] + counts["pending"]


def test_log_lines_go_to_the_server_with_their_severity(reference: Reference, database: Database) -> None:
    reference.logged("link is down")
    reference.logged("GATEWAY - already marked")
    legacy_import(reference, database).run()
    assert [record["values"] for record in outbox(database, Stream.OWN)] == [
        {"severity": "INFO", "message": "GATEWAY - link is down"},
        {"severity": "INFO", "message": "GATEWAY - already marked"},
    ]


def test_a_second_run_takes_nothing_again(reference: Reference, database: Database) -> None:
    reference.archived(1)
    reference.queued(2)
    reference.logged("x")
    for _ in range(3):
        legacy_import(reference, database).run()
    assert ArchiveMaintenance(database).stats()["rows"] == 2
    assert len(outbox(database, Stream.DATA)) == 1
    assert len(outbox(database, Stream.OWN)) == 1


def test_a_crash_before_the_old_rows_are_deleted_sends_nothing_twice(reference: Reference, database: Database) -> None:
    class Dies(LegacyDatabases):
        def delete_pending(self, ids: object) -> None:
            raise Unavailable("killed here")

    reference.queued(1)
    with pytest.raises(Unavailable):
        LegacyImport(dies := Dies(reference.directory, reference.inbox_path), LegacyImportTable(database)).run()
    dies.close()
    reference.queued(2)
    legacy_import(reference, database).run()
    assert [record["values"] for record in outbox(database, Stream.DATA)] == [{"n": 1}, {"n": 2}]


def test_odd_rows_are_set_aside_or_left_and_stop_nothing(reference: Reference, database: Database) -> None:
    reference.archive.execute("INSERT INTO controller_archive (timestamp_ms, message) VALUES ('soon', '{}'), (5, 'x')")
    reference.inbox.execute("INSERT INTO pending_mqtt_messages (type, message) VALUES ('m', 'no json'), (NULL, NULL)")
    reference.logs.execute("INSERT INTO log_buffer (log_level, message, timestamp_ms) VALUES (NULL, NULL, NULL)")
    reference.archived(3)
    reference.queued(4)
    legacy_import(reference, database).run()
    assert ArchiveMaintenance(database).stats()["rows"] == 2
    assert len(ArchiveMaintenance(database).dead_letters()) == 2
    assert outbox(database, Stream.OWN) == []


def test_without_old_files_nothing_happens(tmp_path: Path, database: Database) -> None:
    LegacyImport(LegacyDatabases(tmp_path / "none", tmp_path / "none" / "inbox.db"), LegacyImportTable(database)).run()
    assert ArchiveMaintenance(database).stats()["rows"] == 0
    assert not (tmp_path / "none").exists()


def numbers(database: Database) -> list[int]:
    return sorted(record["values"]["n"] for record in outbox(database, Stream.DATA))  # type: ignore[index]


def assert_account(database: Database) -> None:
    counts = ArchiveMaintenance(database).counts()
    assert counts["accepted"] == counts["delivered"] + counts["pending"] + counts["evicted"], counts


def test_an_acknowledgement_of_the_rows_around_takes_none_of_the_requeued_ones(
    reference: Reference, database: Database
) -> None:
    """While the take-over runs, rows of the inbox are published and acknowledged."""
    table = RecordTable(database)
    for number in range(100):
        reference.archived(number)
    legacy_import(reference, database).run()
    table.store(
        [Record(1, START_MS + 1000, 1, f'{{"ts":{START_MS + 1000},"values":{{"n":1000}}}}', None, False)], [], None
    )
    in_flight = [row[0] for row in table.pending(Stream.DATA, 0, 10, 1 << 20)]
    read_upto = in_flight[-1]
    for number in range(50):
        reference.queued(number)
    legacy_import(reference, database).run()
    table.mark_published([Delivery(Stream.DATA, [in_flight[0], in_flight[-1]], False)])
    assert numbers(database) == list(range(50))
    behind = [row[0] for row in table.pending(Stream.DATA, read_upto, 1000, 1 << 20)]
    assert len(behind) == 50, "the publisher, who reads upwards, meets every one"
    assert_account(database)


def test_ids_with_gaps_are_marked_exactly(database: Database) -> None:
    table = RecordTable(database)
    texts = [f'{{"ts":{START_MS + n},"values":{{"n":{n}}}}}' for n in range(5)]
    table.store([Record(n, START_MS + n, 1, text, None, False) for n, text in enumerate(texts)], [], None)
    table.mark_published([Delivery(Stream.DATA, [1, 5], False)])
    assert numbers(database) == [1, 2, 3]


def test_a_database_created_anew_is_taken_over_whole(reference: Reference, database: Database, tmp_path: Path) -> None:
    """The reference ran again in between, and its ids began at 1 again."""
    for number in range(200):
        reference.archived(number)
        reference.queued(number)
        reference.logged(f"line {number}")
    legacy_import(reference, database).run()
    reference.close()
    for name in ("gateway_archive.db", "communication_queue.db", "gateway_logs_buffer.db"):
        for part in tmp_path.glob(f"{name}*"):
            part.unlink()
    again = Reference(tmp_path)
    for number in range(300, 450):
        again.archived(number)
        again.queued(number)
        again.logged(f"line {number}")
    for _ in range(2):
        legacy_import(again, database).run()
    again.close()
    assert numbers(database) == [*range(200), *range(300, 450)]
    assert ArchiveMaintenance(database).stats()["rows"] == 350
    assert len(outbox(database, Stream.OWN)) == 350
    assert_account(database)


def test_a_restored_copy_of_the_old_archive_is_not_kept_twice(
    reference: Reference, database: Database, tmp_path: Path
) -> None:
    for number in range(20):
        reference.archived(number)
    legacy_import(reference, database).run()
    reference.archive.execute("DELETE FROM controller_archive WHERE id = 20")
    for number in range(20, 30):
        reference.archived(number)
    reference.archive.execute("UPDATE controller_archive SET id = 20 WHERE id = 21")
    legacy_import(reference, database).run()
    assert ArchiveMaintenance(database).stats()["rows"] == 30


def test_identical_waiting_rows_keep_the_account(reference: Reference, database: Database) -> None:
    reference.archived(7)
    for _ in range(3):
        reference.queued(7)
    legacy_import(reference, database).run()
    assert numbers(database) == [7, 7, 7]
    assert_account(database)


def test_what_was_noted_by_an_earlier_version_is_understood(reference: Reference, database: Database) -> None:
    """A bare number: of which file, nobody knows. Nothing is skipped, nothing kept twice."""
    for number in range(5):
        reference.archived(number)
    reference.queued(9)
    legacy_import(reference, database).run()
    with database.transaction() as connection:
        connection.execute("UPDATE state SET value = '5' WHERE key LIKE 'takeover/%'")
    reference.archived(5)
    reference.queued(10)
    legacy_import(reference, database).run()
    assert ArchiveMaintenance(database).stats()["rows"] == 8
    assert numbers(database) == [9, 10]


def test_the_files_are_read_without_being_moved_and_nothing_is_left(
    reference: Reference, database: Database, tmp_path: Path
) -> None:
    """They lie among our own files: their reader is given a directory with another name of the file, and no more."""
    shared = tmp_path / "controller"
    shared.mkdir()
    reference.archived(1)
    reference.logged("x")
    before = {path.name for path in tmp_path.iterdir()}
    LegacyImport(LegacyDatabases(tmp_path, shared / "communication_queue.db"), LegacyImportTable(database)).run()
    assert ArchiveMaintenance(database).stats()["rows"] == 1
    assert {path.name for path in tmp_path.iterdir()} == before
    assert reference.archive.execute("SELECT count(*) FROM controller_archive").fetchone() == (1,)


@pytest.mark.parametrize("planted", ["link", "pipe", "view"])
def test_a_hostile_file_is_said_and_touches_nothing(
    reference: Reference, tmp_path: Path, planted: str, caplog: pytest.LogCaptureFixture
) -> None:
    old, shared, other = tmp_path / "old", tmp_path / "shared", tmp_path / "gateway_archive.db"
    old.mkdir()
    reference.archived(1)
    reference.archive.close()
    before = other.read_bytes()
    if planted == "link":
        (old / "gateway_archive.db").symlink_to(other)
    elif planted == "pipe":
        os.mkfifo(old / "gateway_archive.db")
    else:
        with closing(sqlite3.connect(old / "gateway_archive.db")) as connection:
            connection.execute("CREATE VIEW controller_archive AS WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n"
                               " FROM c) SELECT n AS id, n AS timestamp_ms, '' AS message FROM c")  # fmt: skip
    databases = LegacyDatabases(old, shared / "communication_queue.db")
    for _ in range(2):
        with pytest.raises(Unavailable):
            databases.archive(0, 10)
    said = [record.getMessage() for record in caplog.records if "cannot be taken over" in record.getMessage()]
    assert len(said) == 1
    assert other.read_bytes() == before
