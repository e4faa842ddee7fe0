"""Inboxes that a controller could leave behind to hang, crash or misuse whoever opens them. Each returns nothing.

`plant(name, place, wires)` makes one: `place` is the inbox's directory, `wires` the directory of the tripwires, which
nobody may change, read out or remove.
"""

import fcntl
import os
import random
import signal
import socket
import sqlite3
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

F_SETSIG = 10  # which Python 3.11 has no name for
NAME = "communication_queue.db"
PLAIN = "CREATE TABLE messages (id INTEGER PRIMARY KEY AUTOINCREMENT, type text, message text)"
ENDLESS = (
    "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n AS id, '' AS type, '' AS message FROM c"
)
COSTLY = "length(replace(printf('%.*c', 500000, 'x'), 'x', printf('%.*c', 900, 'y')))"
ROW = '{"ts": 1767225600123, "values": {"n": 1}}'

Plant = Callable[[Path, Path], None]
PLANTS: dict[str, Plant] = {}


def plant(name: str, place: Path, wires: Path) -> None:
    PLANTS[name](place, wires)


def _plant(make: Plant) -> Plant:
    PLANTS[make.__name__.replace("_", "-")] = make
    return make


@contextmanager
def _database(place: Path, *statements: str, rows: int = 3, mode: str = "wal") -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(place / NAME, isolation_level=None)
    connection.execute(f"PRAGMA journal_mode={mode}")
    for statement in statements:
        connection.execute(statement)
    if rows:
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO messages (type, message) VALUES ('m', ?)", [(ROW,)] * rows)
        connection.execute("COMMIT")
    yield connection
    connection.close()


def _schema(name: str, *statements: str, rows: int = 0) -> None:
    def make(place: Path, wires: Path) -> None:
        with _database(place, *statements, rows=rows):
            pass

    PLANTS[name] = make


_schema("view-without-end", f"CREATE VIEW messages AS {ENDLESS}")
_schema(
    "views-of-views",
    "CREATE VIEW v0 AS SELECT 1 AS id, '' AS type, '' AS message",
    *(f"CREATE VIEW v{n} AS SELECT a.* FROM v{n - 1} a, v{n - 1} b" for n in range(1, 24)),
    "CREATE VIEW messages AS SELECT * FROM v23",
    PLAIN.replace("messages", "health_check"),
)
_schema(
    "heartbeat-without-end", PLAIN, f"CREATE VIEW health_check AS SELECT id AS timestamp_ms FROM ({ENDLESS})", rows=3
)
_schema(
    "trigger-without-end", PLAIN,
    f"CREATE TRIGGER t BEFORE DELETE ON messages BEGIN SELECT max(id) FROM ({ENDLESS}); END",
    rows=3,
)  # fmt: skip
_schema(
    "trigger-that-refuses", PLAIN, "CREATE TRIGGER t BEFORE DELETE ON messages BEGIN SELECT RAISE(IGNORE); END", rows=3
)
_schema(
    "virtual-table-over-endless-view",
    f"CREATE VIEW source AS {ENDLESS}",
    "CREATE VIRTUAL TABLE messages USING fts5(type, message, content='source', content_rowid='id')",
)
_schema("virtual-table", "CREATE VIRTUAL TABLE messages USING fts5(type, message)", rows=3)
_schema("virtual-table-rtree", "CREATE VIRTUAL TABLE messages USING rtree(id, type, message)")
_schema(
    "virtual-heartbeat-over-endless-view", PLAIN,
    f"CREATE VIEW source AS SELECT id, id AS timestamp_ms FROM ({ENDLESS})",
    "CREATE VIRTUAL TABLE health_check USING fts5(timestamp_ms, content='source', content_rowid='id')", rows=3,
)  # fmt: skip
_schema(
    "generated-column", f"CREATE TABLE messages (id INTEGER PRIMARY KEY, type text, message text AS ({COSTLY}) VIRTUAL)"
)
_schema("generated-column-indexed", f"{PLAIN[:-1]}, g AS ({COSTLY}))", "CREATE INDEX i ON messages (g)")
_schema("generated-column-stored", f"{PLAIN[:-1]}, g AS (length(message)) STORED)", rows=3)
_schema("partial-index", PLAIN, f"CREATE INDEX i ON messages (type) WHERE {COSTLY} > 5")
_schema("expression-index", PLAIN, f"CREATE INDEX i ON messages ({COSTLY})")
_schema("hundred-indexes", PLAIN, *(f"CREATE INDEX i{n} ON messages (type, message)" for n in range(100)), rows=3)
_schema("without-rowid", "CREATE TABLE messages (id INTEGER PRIMARY KEY, type, message) WITHOUT ROWID", rows=0)
_schema("rowids-hidden", "CREATE TABLE messages (rowid, _rowid_, oid, type, message)", rows=3)
_schema("rowid-is-text", "CREATE TABLE messages (rowid TEXT, type, message)", rows=3)
_schema("other-columns", "CREATE TABLE messages (a, b)", "INSERT INTO messages VALUES (1, 2)")
_schema("upper-case", PLAIN.replace("messages", "MESSAGES"), rows=3)
_schema(
    "two-thousand-columns", f"CREATE TABLE messages ({', '.join(f'c{n}' for n in range(1990))}, type, message)", rows=3
)
_schema("five-thousand-tables", PLAIN, "BEGIN", *(f"CREATE TABLE t{n} (a)" for n in range(5000)), "COMMIT", rows=3)
_schema("schema-of-a-megabyte", f"{PLAIN[:-1]}, x CHECK (x <> '{'y' * 1_000_000}'))", rows=3)
_schema("deep-expression", f"{PLAIN[:-1]}, x CHECK (x{' + 1' * 900}))", rows=3)
_schema("costly-check", f"{PLAIN[:-1]}, x CHECK (x IS NULL OR {COSTLY}))", rows=3)
_schema("names-with-newlines", 'CREATE TABLE messages ("type\n2026 ERROR forged" text, message text)', rows=0)
_schema("utf16", "PRAGMA encoding='UTF-16le'", PLAIN, rows=3)
_schema("page-size-65536", "PRAGMA page_size=65536", PLAIN, rows=3)
_schema("foreign-keys", PLAIN, "CREATE TABLE c (m REFERENCES messages (id) ON DELETE CASCADE)", rows=3)
_schema("only-a-heartbeat", "CREATE TABLE health_check (id INTEGER PRIMARY KEY, timestamp_ms)")
_schema("heartbeat-of-text", PLAIN, "CREATE TABLE health_check (timestamp_ms)", "INSERT INTO health_check VALUES ('x')")
_schema(
    "wrong-types", "CREATE TABLE messages (id INTEGER PRIMARY KEY, type, message)",
    "INSERT INTO messages (type, message) VALUES (1.5, x'00ff'), (x'ff', 9e999), (NULL, NULL), (1, 1 << 62)",
    "INSERT INTO messages (id, type, message) VALUES (-9223372036854775808, 'm', '{}')",
    "INSERT INTO messages (id, type, message) VALUES (9223372036854775807, 'm', '[]')",
)  # fmt: skip
_schema(
    "row-of-fifty-megabytes", PLAIN, "INSERT INTO messages (type, message) VALUES ('m', zeroblob(50000000))", rows=2
)
_schema(
    "keys-by-the-thousand", PLAIN,
    "INSERT INTO messages (type, message) WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 300)"
    " SELECT 'm', printf('{\"ts\":1767225600123,\"values\":{%s}}', (WITH RECURSIVE k(i) AS (SELECT 1 UNION ALL SELECT"
    " i + 1 FROM k LIMIT 5000) SELECT group_concat(printf('\"k%d-%d\":1', n, i)) FROM k)) FROM c",
)  # fmt: skip
_schema(
    "numbers-that-grow", PLAIN,
    "INSERT INTO messages (type, message) WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 2000)"
    " SELECT 'm', printf('{\"ts\":1767225600123,\"values\":{%s}}', (WITH RECURSIVE k(i) AS (SELECT 1 UNION ALL SELECT"
    " i + 1 FROM k LIMIT 190) SELECT group_concat(printf('\"%d\":1e300', i)) FROM k)) FROM c",
)  # fmt: skip


def _lying(name: str, change: str) -> None:
    """A schema table that says something else than the statements in it."""

    def make(place: Path, wires: Path) -> None:
        with _database(place, PLAIN, "CREATE TABLE other (id INTEGER PRIMARY KEY, type, message)") as connection:
            connection.execute("PRAGMA writable_schema=ON")
            connection.execute(change)

    PLANTS[name] = make


_lying(
    "lie-table-is-a-view",
    f"UPDATE sqlite_master SET sql = 'CREATE VIEW messages AS {ENDLESS.replace(chr(39), chr(39) * 2)}'"
    " WHERE name = 'messages'",
)
_lying("lie-root-is-the-schema", "UPDATE sqlite_master SET rootpage = 1 WHERE name = 'messages'")
_lying(
    "lie-root-is-another-table",
    "UPDATE sqlite_master SET rootpage = (SELECT rootpage FROM sqlite_master WHERE name = 'other')"
    " WHERE name = 'messages'",
)
_lying("lie-root-beyond-the-end", "UPDATE sqlite_master SET rootpage = 4000000000 WHERE name = 'messages'")
_lying(
    "lie-unknown-module",
    "UPDATE sqlite_master SET sql = 'CREATE VIRTUAL TABLE messages USING nothing(x)' WHERE name = 'messages'",
)
_lying("lie-two-tables", "INSERT INTO sqlite_master SELECT * FROM sqlite_master WHERE name = 'messages'")
_lying(
    "lie-collation",
    "INSERT INTO sqlite_master SELECT 'index', 'i', 'messages', rootpage,"
    " 'CREATE INDEX i ON messages (type COLLATE unknown)' FROM sqlite_master WHERE name = 'other'",
)
_lying("lie-no-sql", "UPDATE sqlite_master SET sql = NULL WHERE name = 'messages'")
_lying(
    "lie-newline-in-sql",
    "UPDATE sqlite_master SET sql = 'CREATE nonsense' || char(10) || '2026 ERROR forged' WHERE name = 'messages'",
)


def _damaged(name: str, damage: Callable[[bytearray], None], rows: int = 2000) -> None:
    def make(place: Path, wires: Path) -> None:
        with _database(place, PLAIN, rows=rows, mode="delete"):
            pass
        data = bytearray((place / NAME).read_bytes())
        damage(data)
        (place / NAME).write_bytes(data)

    PLANTS[name] = make


def _page(data: bytearray, number: int) -> int:
    return (number - 1) * 4096


def _random_bytes(seed: int) -> Callable[[bytearray], None]:
    def damage(data: bytearray) -> None:
        source = random.Random(seed)
        for _ in range(400):
            data[source.randrange(100, len(data))] = source.randrange(256)

    return damage


def _children_are_itself(data: bytearray) -> None:
    """The table's root points to itself by every cell: a tree without leaves."""
    root = _page(data, 2)
    cells = struct.unpack(">H", data[root + 3 : root + 5])[0]
    for number in range(cells):
        cell = root + struct.unpack(">H", data[root + 12 + 2 * number : root + 14 + 2 * number])[0]
        data[cell : cell + 4] = struct.pack(">I", 2)
    data[root + 8 : root + 12] = struct.pack(">I", 2)


def _endless_tree(data: bytearray) -> None:
    """Eighteen interior pages, each pointing four hundred times to the next: 10^46 pages to visit, and no row."""
    pages = len(data) // 4096
    for level in range(18):
        page, target = bytearray(4096), pages + level + 2
        cells = 400
        page[0:12] = struct.pack(">BHHHBI", 5, 0, cells, 4096 - 8 * cells, 0, target)
        for number in range(cells):
            at = 4096 - 8 * (number + 1)
            page[12 + 2 * number : 14 + 2 * number] = struct.pack(">H", at)
            page[at : at + 5] = struct.pack(">IB", target, 0)
        data += page
    leaf = bytearray(4096)
    leaf[0:8] = struct.pack(">BHHHB", 13, 0, 0, 4096, 0)
    data += leaf
    root = _page(data, 2)
    data[root : root + 4096] = data[_page(data, pages + 1) : _page(data, pages + 1) + 4096]
    data[28:32] = struct.pack(">I", len(data) // 4096)


def _free_list_in_a_circle(data: bytearray) -> None:
    data[32:40] = struct.pack(">II", 3, 1000)
    data[_page(data, 3) : _page(data, 3) + 8] = struct.pack(">II", 3, 0)


for _seed in range(4):
    _damaged(f"random-damage-{_seed}", _random_bytes(_seed))
_damaged("tree-in-a-circle", _children_are_itself)
_damaged("tree-without-end", _endless_tree)
_damaged("free-list-in-a-circle", _free_list_in_a_circle)
_damaged("page-count-of-four-billion", lambda data: data.__setitem__(slice(28, 32), b"\xff\xff\xff\xfe"))
_damaged("page-size-of-one", lambda data: data.__setitem__(slice(16, 18), b"\x00\x01"))
_damaged("unknown-version", lambda data: data.__setitem__(slice(18, 20), b"\x07\x07"))
_damaged("cut-off", lambda data: data.__delitem__(slice(5000, None)))
_damaged("header-only", lambda data: data.__delitem__(slice(100, None)))
_damaged("empty", lambda data: data.clear(), rows=0)
_damaged("no-database", lambda data: data.__setitem__(slice(None), b"no database, but long enough for a header " * 9))


def _super_journal(target: bytes, valid: bool) -> bytes:
    """A hot journal of a page, ending with the record that names its super-journal."""
    magic = bytes.fromhex("d9d505f920a163d7")
    header = magic + struct.pack(">IIIII", 1 if valid else 0, 0, 3, 512, 4096)
    body = struct.pack(">I", 3) + b"\0" * 4096 + struct.pack(">I", 0)
    record = struct.pack(">I", 262145) + target + struct.pack(">II", len(target), sum(target)) + magic
    return header.ljust(512, b"\0") + (body if valid else b"") + record


@_plant
def journal_names_another_file(place: Path, wires: Path) -> None:
    with _database(place, PLAIN, mode="delete"):
        pass
    (place / f"{NAME}-journal").write_bytes(_super_journal(os.fsencode(wires / "super-journal"), valid=True))


@_plant
def empty_journal_names_another_file(place: Path, wires: Path) -> None:
    with _database(place, PLAIN, mode="delete"):
        pass
    (place / f"{NAME}-journal").write_bytes(_super_journal(os.fsencode(wires / "super-journal"), valid=False))


@_plant
def journal_of_rubbish(place: Path, wires: Path) -> None:
    with _database(place, PLAIN, mode="delete"):
        pass
    (place / f"{NAME}-journal").write_bytes(random.Random(1).randbytes(100_000))


@_plant
def log_of_rubbish(place: Path, wires: Path) -> None:
    with _database(place, PLAIN):
        pass
    for suffix in ("-wal", "-shm"):
        (place / f"{NAME}{suffix}").write_bytes(random.Random(2).randbytes(1_000_000))


@_plant
def log_index_of_rubbish(place: Path, wires: Path) -> None:
    """The log is good and its index says that frames lie where there are none."""
    connection = sqlite3.connect(place / NAME, isolation_level=None)
    for statement in ("PRAGMA journal_mode=WAL", PLAIN, "INSERT INTO messages (type) VALUES ('m')"):
        connection.execute(statement)
    kept = {suffix: (place / f"{NAME}{suffix}").read_bytes() for suffix in ("", "-wal", "-shm")}
    connection.close()
    for suffix, data in kept.items():
        (place / f"{NAME}{suffix}").write_bytes(data)
    with (place / f"{NAME}-shm").open("r+b") as index:
        index.seek(200)
        index.write(b"\xff" * 30_000)


@_plant
def log_index_of_a_terabyte(place: Path, wires: Path) -> None:
    with _database(place, PLAIN):
        pass
    (place / f"{NAME}-wal").write_bytes(b"")
    os.truncate(_touched(place / f"{NAME}-shm"), 1 << 40)


@_plant
def terabyte_of_nothing(place: Path, wires: Path) -> None:
    os.truncate(_touched(place / NAME), 1 << 40)


@_plant
def terabyte_behind_a_database(place: Path, wires: Path) -> None:
    with _database(place, PLAIN, mode="delete"):
        pass
    os.truncate(place / NAME, 1 << 40)


@_plant
def log_of_a_terabyte(place: Path, wires: Path) -> None:
    with _database(place, PLAIN):
        pass
    os.truncate(_touched(place / f"{NAME}-wal"), 1 << 40)


def _touched(path: Path) -> Path:
    path.touch()
    return path


def _beside(kind: str, make: Callable[[Path, Path], None]) -> None:
    """The thing in place of the file and of each file beside it, there beside a sound database."""
    for suffix in ("", "-journal", "-wal", "-shm"):

        def planted(place: Path, wires: Path, suffix: str = suffix) -> None:
            if suffix:
                with _database(place, PLAIN, mode="delete" if suffix == "-journal" else "wal"):
                    pass
            make(place / (NAME + suffix), wires / ("other.db" + suffix))

        PLANTS[f"{kind}-as{suffix or '-the-file'}"] = planted


def _socket(path: Path, _: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        directory = os.open(path.parent, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{directory}/{path.name}")
        os.close(directory)


_beside("pipe", lambda path, _: os.mkfifo(path))
_beside("link", lambda path, wire: path.symlink_to(wire))
_beside("hard-link", lambda path, wire: os.link(wire, path))
_beside("directory", lambda path, _: path.mkdir())
_beside("socket", _socket)
_beside("device-zero", lambda path, _: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5)))
_beside("link-in-a-circle", lambda path, _: path.symlink_to(path.name))


@_plant
def link_to_a_device(place: Path, wires: Path) -> None:
    (place / NAME).symlink_to("/dev/zero")


@_plant
def link_to_our_own_memory(place: Path, wires: Path) -> None:
    (place / NAME).symlink_to("/proc/self/mem")


@_plant
def nobody_may_read(place: Path, wires: Path) -> None:
    with _database(place, PLAIN):
        pass
    (place / NAME).chmod(0)


@contextmanager
def leased(path: Path) -> Iterator[None]:
    """A lease on the file: whoever opens it waits for 45 s (fcntl(2), F_SETLEASE)."""
    with path.open("r+b") as held:
        fcntl.fcntl(held, F_SETSIG, signal.SIGURG)  # told by a signal that ends nobody
        fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        yield
