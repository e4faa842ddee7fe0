"""A damaged gateway.db: moved aside, service goes on at once, and what lies on intact pages comes back, each once."""

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import pytest

from teg.adapters.gateway_db.connections import Damaged
from teg.adapters.gateway_db.unproven import UnprovenTable
from teg.domain.errors import Unavailable
from teg.domain.telemetry.ports import Stream
from tests.support.archives import Archive, index_of, log_of

ROWS, DELIVERED, SIZE = 5000, 3000, 100
PAGE = 1024


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    archive = Archive(tmp_path / "data")
    yield archive
    archive.close()


def filled(archive: Archive) -> None:
    for first in range(0, ROWS, 500):
        archive.store(*range(first, first + 500), size=SIZE)
    archive.deliver(range(1, DELIVERED + 1))
    archive.state.put("wanted", {"version": "1.2"})
    archive.database.checkpoint()


def pages_of(path: Path, table: str) -> list[int]:
    """Leaf pages of a table, asked from SQLite itself where it can tell, else found by their content."""
    data = path.read_bytes()
    leaf = {"record": 0x0D, "outbox": 0x0A}[table]
    mark = b'"values"' if table == "record" else b""
    return [
        number + 1
        for number in range(1, len(data) // PAGE)
        if data[number * PAGE] == leaf and mark in data[number * PAGE : (number + 1) * PAGE]
    ]


def overwrite(path: Path, pages: list[int], content: bytes = b"\xa5" * PAGE) -> None:
    with path.open("r+b") as file:
        for page in pages:
            file.seek((page - 1) * PAGE)
            file.write(content)


def rows_on(path: Path, pages: list[int]) -> int:
    data = path.read_bytes()
    return sum(data[(page - 1) * PAGE : page * PAGE].count(b'"values"') for page in pages)


def finish(archive: Archive) -> None:
    archive.salvage.run()
    assert not archive.salvage.due
    archive.assert_account()


def damage_records(path: Path, count: int) -> int:
    """Returns the number of rows that were on the damaged pages."""
    pages = random.Random(count).sample(pages_of(path, "record"), count)
    rows = rows_on(path, pages)
    overwrite(path, pages)
    return rows


@pytest.mark.parametrize("count", [1, 10, 60])
def test_damaged_record_pages_cost_their_own_rows_only(archive: Archive, count: int) -> None:
    filled(archive)
    archive.database.close()
    on_them = damage_records(archive.path, count)
    archive.start()
    archive.store(*range(ROWS, ROWS + 10))  # service goes on before anything is brought back
    assert archive.numbers() == list(range(ROWS, ROWS + 10))
    finish(archive)
    found = archive.numbers()
    assert len(found) == len(set(found))
    assert set(found) <= set(range(ROWS + 10))
    assert len(found) >= (ROWS - on_them) * 0.95 + 10
    assert set(archive.pending()) == {number for number in found if number >= DELIVERED}
    assert archive.counts()["lost"] == (ROWS + 10 - DELIVERED) - len(archive.pending())
    assert archive.counts()["accepted"] == ROWS + 10
    assert archive.state.get("wanted") == {"version": "1.2"}


def zero_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"\0" * 100)


def zero_first_page(path: Path) -> None:
    overwrite(path, [1], b"\0" * PAGE)


@pytest.mark.parametrize("destroy", [zero_header, zero_first_page])
def test_without_a_header_every_row_comes_back(archive: Archive, destroy: Callable[[Path], None]) -> None:
    filled(archive)
    archive.database.close()
    destroy(archive.path)
    archive.start()
    finish(archive)
    assert archive.numbers() == list(range(ROWS))
    assert set(archive.pending()) >= set(range(DELIVERED, ROWS)), "what may be undelivered is sent again"


def test_a_damaged_outbox_sends_again_what_it_cannot_know(archive: Archive) -> None:
    filled(archive)
    archive.database.close()
    overwrite(archive.path, [pages_of(archive.path, "outbox")[3]])
    archive.start()
    finish(archive)
    assert archive.numbers() == list(range(ROWS))
    assert set(archive.pending()) >= set(range(DELIVERED, ROWS))
    assert archive.counts()["accepted"] == ROWS


def go_bad(archive: Archive, pages: list[int]) -> None:
    """Under the open database and by nobody's write, as on a failing card; it is in no cache of the next thread."""
    overwrite(archive.path, pages)
    archive.database._files.checkpointed()  # type: ignore[union-attr]


def in_a_thread(call: Callable[[], object]) -> None:
    """With a connection of its own; raises what `call` raises."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(call).result()


def root_of(archive: Archive, table: str) -> int:
    return int(archive.database.rows("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,))[0][0])


@pytest.mark.parametrize("table", ["record", "outbox", "counter", "sqlite_sequence", "inbox_batch"])
def test_damage_met_while_running_stops_nothing_for_longer_than_one_try(archive: Archive, table: str) -> None:
    filled(archive)
    go_bad(archive, [root_of(archive, table)])

    def work() -> None:
        archive.store(ROWS)
        archive.deliver([DELIVERED + 1])
        archive.counts()
        archive.table.unfinished()

    with pytest.raises(Unavailable):
        in_a_thread(work)
    work()
    finish(archive)
    assert archive.numbers() == list(range(ROWS + 1))
    assert set(archive.pending()) >= set(range(DELIVERED, ROWS + 1))


@pytest.mark.parametrize(
    "read",
    [
        lambda archive: archive.database.rows("SELECT * FROM record"),
        lambda archive: archive.maintenance.stats(),
        lambda archive: archive.table.pending(Stream.DATA, 0, 10_000, 1 << 30),
        lambda archive: archive.maintenance.shrink(0, None),
    ],
    ids=["rows", "stats", "pending", "shrink"],
)
def test_any_reader_that_meets_damage_starts_the_repair(archive: Archive, read: Callable[[Archive], object]) -> None:
    filled(archive)
    go_bad(archive, pages_of(archive.path, "record"))
    with pytest.raises(Damaged):
        in_a_thread(lambda: read(archive))
    assert archive.salvage.due
    archive.store(ROWS)
    assert archive.numbers() == [ROWS]
    finish(archive)
    assert archive.counts()["lost"] == ROWS - DELIVERED


def test_two_threads_that_meet_the_same_damage_repair_it_once(archive: Archive) -> None:
    filled(archive)
    go_bad(archive, pages_of(archive.path, "record"))
    together = threading.Barrier(4)

    def read() -> None:
        together.wait()
        with suppress(Unavailable):
            archive.maintenance.stats()

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list((archive.path.parent / "quarantine").iterdir())) == 1


@pytest.mark.parametrize("what", ["garbage", "empty", "older copy"])
def test_a_file_written_over_in_place_is_never_trusted(archive: Archive, tmp_path: Path, what: str) -> None:
    filled(archive)
    old = archive.path.read_bytes()
    archive.store(*range(ROWS, ROWS + 100), size=SIZE)  # in the log
    content = {"garbage": b"\x5a" * len(old), "empty": b"", "older copy": old[: len(old) // 2]}[what]
    with archive.path.open("r+b") as file:
        file.truncate(0)
        file.write(content)
    with pytest.raises(Unavailable):
        archive.store(*range(ROWS + 100, ROWS + 200), size=SIZE)
    archive.store(*range(ROWS + 100, ROWS + 200), size=SIZE)  # the inbox still had them
    finish(archive)
    assert set(archive.numbers()) >= set(range(ROWS + 1, ROWS + 200)), "what the log held is not lost"
    assert len(archive.numbers()) == len(set(archive.numbers()))


@pytest.mark.parametrize("what", ["empty", "half", "garbage"])
def test_a_log_written_over_in_place_is_never_checkpointed(archive: Archive, what: str) -> None:
    filled(archive)
    archive.store(*range(ROWS, ROWS + 100), size=SIZE)
    log = log_of(archive.path)
    content = log.read_bytes()
    with log.open("r+b") as file:
        file.truncate({"empty": 0, "half": len(content) // 2, "garbage": len(content)}[what])
        if what == "garbage":
            file.write(b"\x77" * len(content))
    with pytest.raises(Unavailable):
        archive.store(*range(ROWS + 100, ROWS + 200), size=SIZE)
    archive.store(*range(ROWS + 100, ROWS + 200), size=SIZE)
    finish(archive)
    assert set(archive.numbers()) >= set(range(ROWS)) | set(range(ROWS + 100, ROWS + 200))
    assert len(archive.numbers()) == len(set(archive.numbers()))


def test_rows_accepted_anew_from_the_inbox_come_back_once(archive: Archive) -> None:
    """The transaction was in the damaged file, its end was not reported: the inbox still has the rows."""
    archive.store(*range(100))
    archive.database.close()
    zero_header(archive.path)
    archive.start()
    archive.store(*range(50, 120))
    finish(archive)
    assert archive.numbers() == list(range(120))


def test_an_interrupted_salvage_goes_on_and_brings_nothing_twice(archive: Archive) -> None:
    filled(archive)
    archive.database.close()
    damage_records(archive.path, 3)
    archive.start()
    stops = iter([False, False, True])
    assert archive.salvage.run(lambda: next(stops, True)) == []
    archive.assert_account()
    with closing(archive.after_kill()) as after:
        finish(after)
        assert len(after.numbers()) == len(set(after.numbers()))
        assert after.counts()["accepted"] == ROWS


def test_undelivered_rows_come_first(archive: Archive) -> None:
    filled(archive)
    archive.database.close()
    damage_records(archive.path, 1)
    archive.start()
    archive.salvage.run(lambda: True)
    assert archive.numbers()
    assert min(archive.numbers()) >= DELIVERED


def test_an_id_of_the_old_file_marks_nothing_in_the_new_one(archive: Archive) -> None:
    """Acknowledgements may be on the way while the file is replaced."""
    archive.store(*range(100))
    archive.database.checkpoint()
    with archive.path.open("r+b") as file:
        file.write(b"\x5a" * 4096)
    with pytest.raises(Unavailable):
        archive.store(100)
    archive.store(100)
    archive.deliver(range(1, 102))
    assert archive.pending() == [100]


def test_a_log_without_its_database_is_read_not_deleted(archive: Archive) -> None:
    archive.store(*range(100))
    copy = archive.path.parent.with_name("copy")
    copy.mkdir()
    log_of(copy / archive.path.name).write_bytes(log_of(archive.path).read_bytes())
    with closing(Archive(copy)) as after:
        after.store(100)
        finish(after)
        assert after.numbers() == list(range(101))


def test_an_empty_database_beside_its_log_is_no_fresh_start(archive: Archive) -> None:
    archive.store(*range(100))
    copy = archive.path.parent.with_name("copy")
    copy.mkdir()
    log_of(copy / archive.path.name).write_bytes(log_of(archive.path).read_bytes())
    (copy / archive.path.name).touch()
    with closing(Archive(copy)) as after:
        finish(after)
        assert after.numbers() == list(range(100))


def test_a_garbage_index_is_made_anew(archive: Archive) -> None:
    archive.store(*range(100))
    copy = archive.path.parent.with_name("copy")
    copy.mkdir()
    for part in (archive.path, log_of(archive.path)):
        (copy / part.name).write_bytes(part.read_bytes())
    index_of(copy / archive.path.name).write_bytes(b"\x99" * 32768)
    with closing(Archive(copy)) as after:
        assert after.numbers() == list(range(100))


def test_the_quarantined_set_stays_as_it_was_found(archive: Archive) -> None:
    archive.store(*range(100))
    archive.database.checkpoint()
    archive.store(*range(100, 200))
    log = log_of(archive.path).read_bytes()
    with archive.path.open("r+b") as file:
        file.write(b"\x5a" * 4096)
    with pytest.raises(Unavailable):
        archive.store(200)
    finish(archive)
    [folder] = (archive.path.parent / "quarantine").iterdir()
    assert log_of(folder / "gateway.db").read_bytes().startswith(log)


def test_what_was_acknowledged_and_not_proven_stored_is_sent_again(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "data", proofs=True)
    archive.store(*range(1, 101), size=SIZE)
    archive.deliver(range(1, 41))
    UnprovenTable(archive.database).prove(UnprovenTable(archive.database).next_watermark().number)
    archive.deliver(range(41, 61))
    archive.database.checkpoint()
    archive.database.close()
    overwrite(archive.path, pages_of(archive.path, "record")[:1])
    archive.start()
    finish(archive)
    assert archive.pending() == list(range(41, 101))
    assert archive.counts()["lost"] == 0
    archive.assert_account()
    archive.close()
