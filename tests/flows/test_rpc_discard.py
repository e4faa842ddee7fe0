"""`archive_discard_messages`: what is not proven to be stored stays, and the answer says so."""

from pathlib import Path

from teg.domain.telemetry.ports import Stream
from tests.support.outboxes import TS, Archive
from tests.support.rpc import Rig

RANGE = {"start_timestamp_ms": 1, "end_timestamp_ms": 2}


def test_what_was_kept_is_counted_with_the_reason(tmp_path: Path) -> None:
    with Rig(tmp_path / "gateway.db").serving() as rig:
        rig.archive.unproven = 3
        assert rig.call(3, "archive_discard_messages", RANGE) == (
            "OK - 10 messages discarded - 1 -> 2 (3 kept: not yet proven to be stored on the server)"
        )


def test_acknowledged_and_unproven_rows_are_kept_and_counted(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    archive.unproven.keeps_watermarks(True)
    archive.store(*range(1, 6))
    archive.deliver(1, 2, 3, lane=Stream.DATA)
    first = archive.unproven.next_watermark()
    archive.deliver(4)
    archive.unproven.prove(first.number)
    assert archive.maintenance.discard(TS, TS + 10) == 3
    assert archive.maintenance.kept(TS, TS + 10) == 2
    assert archive.maintenance.kept(TS + 6, TS + 10) == 0
    archive.database.close()
