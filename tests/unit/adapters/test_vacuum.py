"""Free pages are given back as many at a time as was asked for, not one with a checkpoint of its own."""

from pathlib import Path

from tests.support.archives import TS, Archive


def test_one_call_gives_back_as_many_pages_as_it_was_told(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "data")
    archive.store(*range(1, 2001), size=200)
    archive.deliver(range(1, 2001))
    archive.database.checkpoint()
    size_bytes = archive.database.file_bytes()
    assert archive.maintenance.discard(TS + 1, TS + 1000) == 1000
    assert archive.database.free_pages() > 200
    given = archive.database.vacuum(150)
    assert given in (150, 151), "the page that says whose children they are may go with them"
    assert archive.database.file_bytes() == size_bytes - given * 1024
    assert len(archive.numbers()) == 1000
    archive.close()
