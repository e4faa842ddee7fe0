"""What the gateway knows about its archive beside the archive: a fresh start is never silent."""

import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from teg.adapters.gateway_db import outbox, state
from teg.adapters.gateway_db.keeper import MARK_EVERY_S, DatabaseKeeper
from teg.adapters.gateway_db.maintenance import ArchiveMaintenance
from teg.adapters.gateway_db.outbox import RecordTable
from teg.console.main import main
from teg.domain.telemetry.ports import Delivery, Stream
from tests.support.archives import TS, log_of, record
from tests.support.links import FakeClock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gateway.db"


@contextmanager
def kept(path: Path, clock: FakeClock | None = None) -> Iterator[DatabaseKeeper]:
    with closing(DatabaseKeeper(path, (clock or FakeClock()).monotonic_s)) as keeper:
        keeper.open(outbox.SCHEMA, state.SCHEMA)
        yield keeper


def store(keeper: DatabaseKeeper, *numbers: int) -> None:
    RecordTable(keeper.database).store([record(number) for number in numbers], [], None)


def numbers(keeper: DatabaseKeeper) -> list[int]:
    return sorted(ts - TS for (ts,) in keeper.database.rows("SELECT ts FROM record"))


def assert_account(keeper: DatabaseKeeper, lost: int) -> None:
    counts = ArchiveMaintenance(keeper.database).counts()
    assert counts["lost"] == lost
    assert counts["accepted"] == counts["delivered"] + counts["pending"] + counts["evicted"] + lost, counts


def lose_everything(path: Path) -> None:
    path.unlink()
    log_of(path).unlink(missing_ok=True)


def empty_it(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("lose", [lose_everything, empty_it])
def test_a_database_that_is_gone_is_said_and_counted(
    path: Path, lose: object, caplog: pytest.LogCaptureFixture
) -> None:
    with kept(path) as keeper:
        store(keeper, *range(100))
        RecordTable(keeper.database).mark_published([Delivery(Stream.DATA, list(range(1, 61)), False)])
        keeper.tend()
    assert callable(lose)
    lose(path)
    with kept(path) as keeper:
        assert "knows 0 records, 100 had been accepted before" in caplog.text
        assert_account(keeper, lost=40)
        store(keeper, 200)
        [(row_id,)] = keeper.database.rows("SELECT id FROM record")
        assert row_id > 100, "an acknowledgement for an old row would mark it"
        assert_account(keeper, lost=40)
        keeper.tend()
    caplog.clear()
    with kept(path):
        assert "had been accepted" not in caplog.text, "once"


def test_a_lost_log_is_said_and_what_is_left_is_used(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    elsewhere = path.parent / "after-a-cut"
    elsewhere.mkdir()
    with kept(path) as keeper:
        store(keeper, *range(50))
        keeper.database.checkpoint()
        store(keeper, *range(50, 80))
        keeper.tend()
        for name in (path, path.with_name("gateway.db.marker")):
            shutil.copy(name, elsewhere / name.name)
    with kept(elsewhere / path.name) as keeper:
        assert "knows 50 records, 80 had been accepted before" in caplog.text
        assert numbers(keeper) == list(range(50))
        assert_account(keeper, lost=30)
        store(keeper, 100)
        assert keeper.database.rows("SELECT max(id) > 80 FROM record") == [(1,)]


def test_an_ordinary_restart_says_nothing(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for turn in range(3):
        with kept(path) as keeper:
            store(keeper, turn)
            keeper.tend()
            store(keeper, turn + 10)
    assert caplog.records == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"record": "x"}', b'{"record": 5}'])
def test_a_marker_that_cannot_be_read_stops_nothing(path: Path, content: bytes) -> None:
    path.with_name("gateway.db.marker").write_bytes(content)
    with kept(path) as keeper:
        store(keeper, 1)
        keeper.tend()
    with kept(path) as keeper:
        assert numbers(keeper) == [1]


def test_care_is_due_once_a_minute_and_at_once_when_the_file_is_gone(path: Path) -> None:
    clock = FakeClock()
    with kept(path, clock) as keeper:
        assert keeper.care_due
        keeper.tend()
        clock.s += MARK_EVERY_S - 1
        assert not keeper.care_due
        path.unlink()
        assert keeper.care_due
        keeper.tend()
        assert path.exists()
        assert not keeper.care_due


def test_salvage_by_hand(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backup = tmp_path / "elsewhere" / "old.db"
    backup.parent.mkdir()
    with kept(backup) as keeper:
        store(keeper, *range(100))
    monkeypatch.setenv("TEG_DATA_PATH", str(path.parent))
    monkeypatch.setenv("TEG_CONTROLLER_DATA_PATH", str(tmp_path / "controller"))
    monkeypatch.setenv("TB_HOST", "localhost")
    monkeypatch.setenv("TB_PORT", "1883")
    content = backup.read_bytes()
    result = CliRunner().invoke(main, ["salvage", str(backup)])
    assert result.exit_code == 0, result.output
    with kept(path) as keeper:
        store(keeper, 500)
        [line] = keeper.salvage(lambda: False)
        assert "100 undelivered records" in line
        assert numbers(keeper) == [*range(100), 500]
        assert_account(keeper, lost=0)
        assert not keeper.salvage_due
    assert backup.read_bytes() == content


def test_salvage_of_the_database_in_use_is_refused(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEG_DATA_PATH", str(path.parent))
    monkeypatch.setenv("TEG_CONTROLLER_DATA_PATH", str(tmp_path / "controller"))
    monkeypatch.setenv("TB_HOST", "localhost")
    monkeypatch.setenv("TB_PORT", "1883")
    with kept(path):
        result = CliRunner().invoke(main, ["salvage", str(path)])
        assert result.exit_code == 1
        assert "the database in use" in result.output
