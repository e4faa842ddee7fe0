"""What passes between the gateway and the reader process, a frame a request and a frame an answer.

The gateway reads answers as hostile input: the reader may have been taken over by the file it read. Lengths are
checked against what is there, numbers are of fixed width, text is UTF-8, and a frame has an upper bound; nothing that
is unpacked here grows beyond the frame it came in.
"""

import socket
import struct
import time
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Any

from teg.domain.telemetry.ingest import Batch, RowsRead
from teg.domain.telemetry.judging import Plain
from teg.domain.telemetry.ports import fingerprint
from teg.domain.telemetry.validation import (
    EARLIEST_TS_MS,
    LATEST_TS_MS,
    MAX_RECORD_BYTES,
    Oversized,
    Record,
    SetAside,
    as_bytes,
)

#: A batch ends with the row that fills it: its bytes (1 MiB), one row of the largest size, and the rows' heads.
MAX_FRAME_BYTES = 8 << 20
MARK_BYTES = 16
MIN_ID, MAX_ID = -(2**63), 2**63 - 1


class Op(IntEnum):
    HAS_ROWS = 1
    HEARTBEAT = 2
    READ = 3
    DELETE = 4
    RAW = 5


class Answer(IntEnum):
    DONE = 0
    ABSENT = 1  #: there is no file
    REPLACED = 2  #: another file lies there now, or the rows are others
    LOCKED = 3
    TROUBLE = 4  #: with a text


class BrokenFrame(Exception):  # noqa: N818 - names what came
    """The other side does not speak our language: it is broken, or not ours any more."""


_LENGTH = struct.Struct("<I")
_REQUEST = struct.Struct("<BBqII")
_ROW = struct.Struct("<qqIBII16s")  #: id, ts_ms, points, kind, bytes of message, bytes of payload, mark
_AS_IT_IS, _CORRECTED, _TRANSIENT, _ASIDE, _ODD = 0, 1, 2, 4, 8
_KINDS = _CORRECTED | _TRANSIENT | _ODD
_VALUE = struct.Struct("<cI")
_EARLIEST, _LATEST = EARLIEST_TS_MS - 1, LATEST_TS_MS + 1


def send(channel: socket.socket, payload: bytes) -> None:
    channel.sendall(_LENGTH.pack(len(payload)) + payload)


def receive(channel: socket.socket, deadline_s: float | None = None) -> bytes:
    """The next frame. `deadline_s` by time.monotonic(): TimeoutError after it; EOFError when the other side is gone."""
    (size,) = _LENGTH.unpack(_receive_exactly(channel, _LENGTH.size, deadline_s))
    if size > MAX_FRAME_BYTES:
        raise BrokenFrame(f"a frame of {size} bytes")
    return _receive_exactly(channel, size, deadline_s)


def _receive_exactly(channel: socket.socket, size: int, deadline_s: float | None) -> bytes:
    parts: list[bytes] = []
    while size:
        if deadline_s is not None:
            channel.settimeout(max(0.001, deadline_s - time.monotonic()))
        if not (part := channel.recv(min(size, 1 << 18))):
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


# --- requests


def encode_request(op: Op, table: int = 0, first_id: int = 0, max_rows: int = 0, max_bytes: int = 0) -> bytes:
    return _REQUEST.pack(op, table, first_id, max_rows, max_bytes)


def decode_request(frame: bytes) -> tuple[int, int, int, int, int, bytes]:
    """(op, table, first_id, max_rows, max_bytes, the rest)"""
    return *_REQUEST.unpack_from(frame), frame[_REQUEST.size :]


def encode_rows(ids: Sequence[int], marks: Sequence[bytes]) -> bytes:
    return struct.pack(f"<{len(ids)}q", *ids) + b"".join(marks)


def decode_rows(data: bytes) -> tuple[Sequence[int], Sequence[bytes]]:
    count = len(data) // (8 + MARK_BYTES)
    marks = data[8 * count :]
    return struct.unpack_from(f"<{count}q", data), [marks[at : at + 16] for at in range(0, len(marks), MARK_BYTES)]


# --- batches of judged rows


def mark(message: Any) -> bytes:
    """What a row held, to be known again: the same as the archive's fingerprint of it."""
    return fingerprint(message if type(message) in (bytearray, bytes, Oversized) else as_bytes(message))


def encode_batch(judged: Iterable[tuple[Any, Plain | Record | SetAside]], max_bytes: int) -> bytes:
    """From (message as it was read, what became of it); ends with the row that fills `max_bytes`."""
    heads: list[bytes] = []
    bodies: list[bytes] = []
    size = 0
    for message, verdict in judged:
        row_id, ts_ms, points, kind, text, payload = _parts(message, verdict)
        heads.append(_ROW.pack(row_id, ts_ms, points, kind, len(text), len(payload), mark(message)))
        bodies += (text, payload)
        size += len(text) + len(payload)
        if size >= max_bytes:
            break
    return _LENGTH.pack(len(heads)) + b"".join(heads) + b"".join(bodies)


def _parts(message: Any, verdict: Plain | Record | SetAside) -> tuple[int, int, int, int, bytes, bytes]:
    if type(verdict) is Plain:
        return verdict[0], verdict[1], verdict[2], _TRANSIENT if verdict[3] else _AS_IT_IS, message, b""
    if type(verdict) is SetAside:
        why = f"{verdict.reason[:1000]}\0{verdict.type}".encode(errors="replace")
        return verdict.source_row, 0, 0, _ASIDE, verdict.message, why
    assert type(verdict) is Record
    row_id, ts_ms, points, _, payload, transient = verdict
    kind = _ODD | (_AS_IT_IS if payload is None else _CORRECTED) | (_TRANSIENT if transient else 0)
    return row_id, ts_ms, points, kind, message, b"" if payload is None else payload.encode()


def batch_end(data: bytes) -> tuple[int, int]:
    """(number of rows, id of the last) of an encoded batch."""
    (count,) = _LENGTH.unpack_from(data)
    return count, _ROW.unpack_from(data, _LENGTH.size + (count - 1) * _ROW.size)[0] if count else 0


def batch_rows(data: bytes) -> tuple[list[int], list[bytes]]:
    """(ids, marks) of an encoded batch."""
    (count,) = _LENGTH.unpack_from(data)
    heads = list(_ROW.iter_unpack(data[_LENGTH.size : _LENGTH.size + count * _ROW.size]))
    return [head[0] for head in heads], [head[6] for head in heads]


def decode_batch(data: bytes, generation: int) -> Batch:
    """Raises BrokenFrame unless every row is of the right shape and size and the ids ascend."""
    try:
        return _decode_batch(data, generation)
    except (struct.error, UnicodeDecodeError) as error:
        raise BrokenFrame(str(error)) from error


def _decode_batch(data: bytes, generation: int) -> Batch:
    (count,) = _LENGTH.unpack_from(data)
    at = _LENGTH.size + count * _ROW.size
    records: list[Record] = []
    aside: list[SetAside] = []
    odd: list[str] = []
    ids: list[int] = []
    marks: list[bytes] = []
    for row_id, ts_ms, points, kind, size, more, row_mark in _ROW.iter_unpack(data[_LENGTH.size : at]):
        message, payload = data[at : at + size], data[at + size : at + size + more]
        at += size + more
        ids.append(row_id)
        marks.append(row_mark)
        if kind == _ASIDE:
            reason, _, row_type = payload.decode().partition("\0")
            aside.append(SetAside(row_id, row_type, message, printable(reason)))
            continue
        corrected = payload.decode() if kind & _CORRECTED else None
        published = size if corrected is None else more
        if (
            kind & ~_KINDS
            or published > MAX_RECORD_BYTES
            or not (0 < points < published and _EARLIEST < ts_ms < _LATEST)
        ):
            raise BrokenFrame(f"row {row_id} is of kind {kind}, {published} bytes and {points} points")
        text = message.decode()
        if kind & _ODD:
            odd.append(text)
        records.append(Record(row_id, ts_ms, points, text, corrected, kind & _TRANSIENT != 0))
    if at != len(data) or len(ids) != count or any(map(int.__ge__, ids, ids[1:])):
        raise BrokenFrame("lengths that do not add up, or ids that do not ascend")
    return Batch(records, aside, RowsRead(generation, ids, marks), odd)


# --- rows as they are


def row_mark(row: Sequence[Any]) -> bytes:
    """The mark of a row (id, type, message): of its message."""
    return mark(row[2])


def encode_raw(rows: Iterable[Sequence[Any]], max_bytes: int) -> bytes:
    """Rows (id, values…): None, int, float, bytearray (TEXT) or bytes (BLOB), each with its mark."""
    parts: list[bytes] = []
    count = size = 0
    for row in rows:
        values = b"".join(part for value in row[1:] for part in _encode_value(value))
        parts += (struct.pack("<q16sB", row[0], row_mark(row), len(row) - 1), values)
        count += 1
        size += len(values)
        if size >= max_bytes:
            break
    return _LENGTH.pack(count) + b"".join(parts)


def _encode_value(value: Any) -> tuple[bytes, bytes]:
    if value is None:
        tag, data = b"n", b""
    elif isinstance(value, int):
        tag, data = b"i", struct.pack("<q", value)
    elif isinstance(value, float):
        tag, data = b"f", struct.pack("<d", value)
    elif isinstance(value, Oversized):
        tag, data = b"o", struct.pack("<q", value.size_bytes) + value
    else:
        tag, data = b"t" if isinstance(value, bytearray) else b"b", bytes(value)
    return _VALUE.pack(tag, len(data)), data


def decode_raw(data: bytes) -> tuple[list[tuple[Any, ...]], list[bytes]]:
    """(rows, marks); TEXT as bytearray, BLOB as bytes. Raises BrokenFrame."""
    rows: list[tuple[Any, ...]] = []
    marks: list[bytes] = []
    try:
        (count,), at = _LENGTH.unpack_from(data), _LENGTH.size
        for _ in range(count):
            row_id, known, width = struct.unpack_from("<q16sB", data, at)
            at += 25
            row: list[Any] = [row_id]
            for _ in range(width):
                tag, size = _VALUE.unpack_from(data, at)
                at += _VALUE.size + size
                row.append(_decode_value(tag, data[at - size : at]))
            rows.append(tuple(row))
            marks.append(known)
    except struct.error as error:
        raise BrokenFrame(str(error)) from error
    return rows, marks


def _decode_value(tag: bytes, data: bytes) -> Any:
    if tag == b"n":
        return None
    if tag in b"if":
        return struct.unpack("<q" if tag == b"i" else "<d", data)[0]
    if tag == b"o":
        return Oversized(data[8:], struct.unpack_from("<q", data)[0])
    return bytearray(data) if tag == b"t" else data


def printable(text: str) -> str:
    """Fit for a log line: what the other side writes cannot make lines of its own."""
    return "".join(char if char.isprintable() else "?" for char in text[:1000])
