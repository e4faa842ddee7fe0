"""The reader process: confined, it opens the one file of the one directory it was given, and answers until it is left.

Started as `python -I … <directory fd> <file name> <names it may have>`, with the socket to the gateway as standard
input. Everything that is needed later is imported and used once before the process is confined: afterwards there is no
library to load.
"""

import select
import socket
import sqlite3
import struct
import sys
from collections.abc import Callable
from typing import Any

import orjson

from teg.adapters.inbox import confinement, wire
from teg.adapters.inbox.hostile_file import Unsafe
from teg.adapters.inbox.queue_file import Absent, QueueFile, Replaced
from teg.adapters.inbox.read_ahead import TABLE_NAMES, ReadAhead
from teg.adapters.inbox.wire import Answer, Op
from teg.domain.telemetry.judging import Judge
from teg.domain.telemetry.validation import validate

_JUDGE = Judge()
MESSAGES = TABLE_NAMES.index("messages")
#: Messages that lead through all of the validation, so that what it loads late is loaded before the way is shut.
_REHEARSAL = (
    b'{"ts": 1767225600123.5, "values": {"a": 0.30000000000000004, "b": 1.2e20, "c": NaN, "d": "\\ud800", "e": [NaN]}}',
    b'{"ts": 1767225600123, "values": {"' + b"k" * 200 + b'": 1}}',
    b'{"ts": 1767225600123, "values": {"a": 1e400}}',
    b'{"ts": 1, "values": {"a": ' + b"1" * 500 + b"}}",
    b"[" * 5000,
    b"\xff",
)


def main() -> None:
    directory_fd, name, names = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    channel = socket.socket(fileno=0)
    rehearse()
    layers, refusal = confinement.confine(directory_fd, name)
    wire.send(channel, orjson.dumps(layers))
    file = QueueFile(name, names, refusal)
    ahead = ReadAhead(file, answer)
    try:
        while True:
            request = wire.receive(channel)
            confinement.renew_cpu_limit()
            wire.send(channel, ahead.answer(request))
            if ahead.wanted and not select.select([channel], [], [], 0)[0]:
                ahead.prepare()
            confinement.rest()
    except (EOFError, ConnectionError):
        file.close()


def rehearse() -> None:
    for message in _REHEARSAL:
        validate(1, bytearray(b"log"), bytearray(message))
    sqlite3.connect(":memory:").close()


def answer(file: QueueFile, request: bytes) -> bytes:
    try:
        op, table, first_id, max_rows, max_bytes, rest = wire.decode_request(request)
        return bytes([Answer.DONE]) + _WORK[Op(op)](file, TABLE_NAMES[table], first_id, max_rows, max_bytes, rest)
    except Absent:
        return bytes([Answer.ABSENT])
    except Replaced:
        return bytes([Answer.REPLACED])
    except Unsafe as reason:
        return _trouble(str(reason))
    except sqlite3.DatabaseError as error:
        return bytes([Answer.LOCKED]) if _is_busy(error) else _trouble(str(error))
    except OSError as error:
        return _trouble(error.strerror or str(error))
    except MemoryError:
        return _trouble("reading it takes more memory than it may")


def _trouble(text: str) -> bytes:
    return bytes([Answer.TROUBLE]) + text.encode(errors="replace")[:1000]


def _is_busy(error: sqlite3.DatabaseError) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _has_rows(file: QueueFile, table: str, first_id: int, *_: Any) -> bytes:
    return bytes([file.has_rows_between(table, first_id, wire.MAX_ID)])


def _heartbeat(file: QueueFile, *_: Any) -> bytes:
    found = file.last_heartbeat_ms()
    return b"" if found is None else struct.pack("<q", found)


def _read(file: QueueFile, table: str, first_id: int, max_rows: int, max_bytes: int, _: bytes) -> bytes:
    batch = wire.encode_batch(_JUDGE.judged(file.rows(table, first_id, max_rows)), max_bytes)
    file.remember(*wire.batch_rows(batch))
    return batch


def _raw(file: QueueFile, table: str, first_id: int, max_rows: int, max_bytes: int, _: bytes) -> bytes:
    return wire.encode_raw(file.rows(table, first_id, max_rows), max_bytes)


def _delete(file: QueueFile, table: str, _: int, __: int, ___: int, rows: bytes) -> bytes:
    return struct.pack("<d", file.delete(table, *wire.decode_rows(rows), wire.row_mark))


_WORK: dict[Op, Callable[..., bytes]] = {
    Op.HAS_ROWS: _has_rows,
    Op.HEARTBEAT: _heartbeat,
    Op.READ: _read,
    Op.RAW: _raw,
    Op.DELETE: _delete,
}
