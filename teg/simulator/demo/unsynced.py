"""What a power cut takes from an SQLite database: everything behind the last commit that was flushed.

With `synchronous=FULL` a commit returns when its frames are on the disk; frames behind it may be there in part, or not.
Source: the SQLite file format, section 4 (the write-ahead log).
"""

import struct
from pathlib import Path

_HEADER_BYTES, _FRAME_HEADER_BYTES = 32, 24


def drop_unsynced(database: Path) -> int:
    """Cut the log behind its last commit and leave half a frame there. Return how many bytes are gone.

    Nobody may have the database open.
    """
    log = database.with_name(f"{database.name}-wal")
    if not log.exists():
        return 0
    end, size = end_of_last_commit(log.read_bytes()), log.stat().st_size
    if end == 0:
        return 0
    with log.open("r+b") as file:
        file.truncate(end)
        file.seek(end)
        file.write(b"\xa5" * (_FRAME_HEADER_BYTES + 1000))
    return max(size - end, 0)


def end_of_last_commit(log: bytes) -> int:
    """Where it ends in the log, 0 if there is no log. Frames of an earlier round have other salts."""
    if len(log) < _HEADER_BYTES:
        return 0
    page_bytes, salts = struct.unpack(">I", log[8:12])[0], log[16:24]
    end = _HEADER_BYTES
    frame_bytes = _FRAME_HEADER_BYTES + page_bytes
    for start in range(_HEADER_BYTES, len(log) - frame_bytes + 1, frame_bytes):
        _, pages_after_commit = struct.unpack(">II", log[start : start + 8])
        if log[start + 8 : start + 16] != salts:
            break
        if pages_after_commit:
            end = start + frame_bytes
    return end
