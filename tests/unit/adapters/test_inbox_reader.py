"""A reader that was taken over by the file it read: whatever it says, the gateway bounds it, ends it and goes on."""

import itertools
import resource
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teg.adapters.inbox import reader as module
from teg.adapters.inbox import wire
from teg.adapters.inbox.mailbox import Inbox
from teg.adapters.inbox.wire import BrokenFrame
from teg.domain.backoff import Backoff
from teg.domain.errors import Unavailable
from tests.support.children import child_pids
from tests.support.running import ControllerInbox, message

#: A process in the reader's place: says that it is confined, and then what the test wants.
NO_PAUSE = Backoff(first_s=0.0, cap_s=0.0)
TAKEN_OVER = """
import os, socket, struct, sys, time
channel = socket.socket(fileno=0)
def frame(data): return struct.pack("<I", len(data)) + data
def request(): return channel.recv(1 << 20)
channel.sendall(frame(b"{}"))
"""
ROW = struct.Struct("<qqIBII16s")
TS = 1_767_225_600_123


def batch(*rows: tuple[int, int, int, int, int, int], body: bytes = b"", count: int | None = None) -> bytes:
    """An answer to `read`: (id, ts_ms, points, kind, bytes of message, bytes of payload), then the texts."""
    heads = b"".join(ROW.pack(*row, b"m" * 16) for row in rows)
    return bytes([0]) + struct.pack("<I", len(rows) if count is None else count) + heads + body


#: name → statements of the reader after it was asked.
SAYINGS = {
    "nothing": "time.sleep(60)",
    "a-byte-a-second": "[(channel.sendall(b'\\x01'), time.sleep(1)) for _ in range(60)]",
    "four-gigabytes-to-come": "channel.sendall(b'\\xff\\xff\\xff\\xff' + b'x' * 100)",
    "no-frame-without-end": "[channel.sendall(b'\\xff' * 65536) for _ in range(100000)]",
    "half-a-frame": "channel.sendall(b'\\x10\\x00\\x00\\x00abc')",
    "an-empty-frame": "channel.sendall(frame(b''))",
    "an-unknown-kind": "channel.sendall(frame(b'\\x77abc'))",
    "an-empty-batch-frame": "channel.sendall(frame(b'\\x00'))",
    "its-end": "sys.exit(7)",
    "its-death": "os.abort()",
    "trouble-with-newlines": "channel.sendall(frame(b'\\x04' + b'x\\n2026 ERROR forged' * 1000))",
}
BATCHES = {
    "more-rows-than-there-are": batch(count=1_000_000),
    "ids-that-do-not-ascend": batch((2, TS, 1, 0, 2, 0), (1, TS, 1, 0, 2, 0), body=b"{}{}"),
    "the-same-id-twice": batch((2, TS, 1, 0, 2, 0), (2, TS, 1, 0, 2, 0), body=b"{}{}"),
    "lengths-beyond-the-end": batch((1, TS, 1, 0, 1 << 31, 0), body=b"{}"),
    "bytes-that-belong-to-no-row": batch((1, TS, 1, 0, 2, 0), body=b"{}rest"),
    "no-utf-8": batch((1, TS, 1, 0, 2, 0), body=b"\xff\xfe"),
    "a-record-over-the-limit": batch((1, TS, 1, 0, 70_000, 0), body=b"x" * 70_000),
    "a-payload-over-the-limit": batch((1, TS, 1, 1, 2, 70_000), body=b"x" * 70_002),
    "four-billion-points": batch((1, TS, 0xFFFFFFFF, 0, 2, 0), body=b"{}"),
    "no-point": batch((1, TS, 0, 0, 2, 0), body=b"{}"),
    "a-time-before-all-time": batch((1, -(2**63), 1, 0, 2, 0), body=b"{}"),
    "a-time-after-all-time": batch((1, 2**63 - 1, 1, 0, 2, 0), body=b"{}"),
    "an-unknown-kind-of-row": batch((1, TS, 1, 200, 2, 0), body=b"{}"),
}
CASES = {**SAYINGS, **{name: f"channel.sendall(frame({data!r}))" for name, data in BATCHES.items()}}


@pytest.fixture
def inbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inbox]:
    controller = ControllerInbox(tmp_path / "communication_queue.db")
    controller.insert(message(1))
    monkeypatch.setattr(module, "REQUEST_S", 1.0)
    inbox = Inbox(controller.path)
    yield inbox
    inbox.close()
    controller.close()


@pytest.mark.parametrize("name", CASES)
def test_what_a_taken_over_reader_says_is_bounded_and_ends_it(
    name: str, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = child_pids()
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with monkeypatch.context() as patch:
        patch.setattr(module, "RETRY", NO_PAUSE)
        patch.setattr(module, "_START", f"{TAKEN_OVER}\nrequest()\n{CASES[name]}\ntime.sleep(60)")
        with pytest.raises(Unavailable) as told:
            inbox.read(None, 1000, 1 << 20)
    assert "\n" not in str(told.value)
    assert inbox.trouble
    assert child_pids() == before
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 50_000
    assert inbox.read(None, 1000, 1 << 20).rows.ids == [1]


def test_the_same_file_is_tried_again_after_growing_pauses_and_another_one_at_once(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    now_s = 1000.0
    monkeypatch.setattr("teg.adapters.inbox.reader.time.monotonic", lambda: now_s)
    monkeypatch.setattr(module.RETRY.__class__, "wait_s", module.RETRY.__class__.nominal_s)
    trouble = module.Trouble(tmp_path, "communication_queue.db")
    tried = []
    for _ in range(600):
        now_s += 0.5
        try:
            trouble.raise_if_waiting()
        except Unavailable:
            continue
        tried.append(now_s)
        trouble.look()
        trouble.begin("it hangs")
    pauses = [later - earlier for earlier, later in itertools.pairwise(tried)]
    assert pauses[:7] == [1, 2, 4, 8, 16, 32, 60]
    with pytest.raises(Unavailable, match="it hangs"):
        trouble.raise_if_waiting()
    (tmp_path / "communication_queue.db-journal").touch()
    trouble.raise_if_waiting()


@given(st.binary(max_size=300))
def test_no_bytes_at_all_are_a_batch_by_accident_or_break_more_than_the_frame(data: bytes) -> None:
    for decode in (lambda: wire.decode_batch(data, 1), lambda: wire.decode_raw(data)):
        try:
            decode()
        except BrokenFrame:
            continue
        assert data[:4] == b"\0\0\0\0" or len(data) > 20


def test_a_reader_that_does_not_start_is_said(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY", NO_PAUSE)
    monkeypatch.setattr(module, "_START", "raise SystemExit(3)")
    began_s = time.monotonic()
    with pytest.raises(Unavailable, match="the reader ended with status 3 at its start"):
        inbox.has_rows()
    monkeypatch.setattr(module, "_START", f"{TAKEN_OVER.replace('{}', 'no JSON')}\ntime.sleep(60)")
    with pytest.raises(Unavailable, match="the reader answers nonsense"):
        inbox.has_rows()
    assert time.monotonic() - began_s < module.START_S * 2
