"""Which tables and indexes a commit writes: the frames of a write-ahead log, by the b-tree that each page belongs to.

python -m bench.log_pages huey_data/gateway.db     (while it runs, or of a copy with its -wal)
"""

import argparse
import sqlite3
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

_LOG_HEADER_BYTES, _FRAME_HEADER_BYTES = 32, 24
_INTERIOR = {0x02, 0x05}
_TABLE_INTERIOR = 0x05


def commits(log: bytes) -> Iterator[list[int]]:
    """The page numbers of each commit, of the log's current turn."""
    page_bytes = struct.unpack_from(">I", log, 8)[0]
    salts, pages = log[16:24], []
    for at in range(_LOG_HEADER_BYTES, len(log) - page_bytes, _FRAME_HEADER_BYTES + page_bytes):
        number, size = struct.unpack_from(">II", log, at)
        if log[at + 8 : at + 16] != salts:
            return
        pages.append(number)
        if size:
            yield pages
            pages = []


def owners(path: Path) -> dict[int, str]:
    """Page → the table or index that it belongs to, as far as b-trees go (chains of long values are left out)."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        roots = connection.execute("SELECT name, rootpage FROM sqlite_master WHERE rootpage > 0").fetchall()
        with closing(sqlite3.connect(":memory:")) as copy:
            connection.backup(copy)
            image = copy.serialize()
    page_bytes = struct.unpack_from(">H", image, 16)[0]
    return {
        page: name
        for name, root in [*roots, ("sqlite_schema", 1)]
        for page in _tree(image, page_bytes if page_bytes > 1 else 65_536, root)
    }


def _tree(image: bytes, page_bytes: int, number: int) -> Iterator[int]:
    yield number
    start = (number - 1) * page_bytes
    head = start + (100 if number == 1 else 0)
    kind, _, cells, _, _, right = struct.unpack_from(">BHHHBI", image, head)
    if kind not in _INTERIOR:
        return
    for cell in range(cells):
        (offset,) = struct.unpack_from(">H", image, head + 12 + 2 * cell)
        yield from _tree(image, page_bytes, struct.unpack_from(">I", image, start + offset)[0])
    yield from _tree(image, page_bytes, right)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", type=Path)
    path = parser.parse_args().database
    log = path.with_name(path.name + "-wal").read_bytes()
    of_page = owners(path)
    kinds = Counter(tuple(sorted(of_page.get(page, "other") for page in pages)) for pages in commits(log))
    print(f"{kinds.total()} commits, {sum(len(kind) * times for kind, times in kinds.items())} pages")
    for kind, times in kinds.most_common():
        print(f"{times:6} x {len(kind):3} pages: {', '.join(kind)[:160]}")


if __name__ == "__main__":
    main()
