"""The clock is set while records wait: which are moved, by how much, and what is left alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from teg.adapters.gateway_db import clock_anchors
from teg.adapters.gateway_db import outbox as records
from teg.adapters.gateway_db.clock_anchors import SLICE, ClockAnchors
from teg.adapters.gateway_db.database import Database
from teg.adapters.gateway_db.maintenance import ArchiveMaintenance
from teg.adapters.gateway_db.outbox import RecordTable
from teg.adapters.gateway_db.unproven import UnprovenTable
from teg.domain.telemetry.clock_steps import ANCHOR_EVERY_MS, LATE_S, LEAST_STEP_MS, ClockSteps
from teg.domain.telemetry.ports import Delivery, Stream
from teg.domain.telemetry.validation import Record, validate
from tests.support.rpc import FakeClock

#: What fake-hwclock had kept: the moment of the last shutdown.
STALE_MS = 1_767_225_600_000
HOUR_MS = 3_600_000
ACCOUNT = ("stored", "acknowledged", "pending", "evicted", "lost")


class Device:
    """A gateway over one file: the controller stamps with the machine's clock, the gateway archives."""

    def __init__(self, path: Path) -> None:
        self.database = Database(path / "gateway.db")
        self.database.open(records.SCHEMA, clock_anchors.SCHEMA)
        self.clock = FakeClock()
        self.clock.wall_ms, self.clock.uptime_s = STALE_MS + 20_000, 20.0
        self.synchronised = False
        self.row = 0
        self.told: list[tuple[int, int]] = []
        self.start()

    def start(self) -> None:
        """A new process of the gateway."""
        self.anchors = ClockAnchors(self.database, self.clock, lambda: self.synchronised)
        self.table = RecordTable(self.database, self.anchors.note)
        self.steps = ClockSteps(self.anchors, self.clock, lambda *told: self.told.append(told))

    def reboot(self, wall_ms: int) -> None:
        self.clock.reboot(20.0)
        self.clock.wall_ms = wall_ms
        self.start()

    def set_clock(self, step_ms: int) -> None:
        self.clock.wall_ms += step_ms

    def measure(self, *stamps_ms: int) -> None:
        """One batch; stamped now, unless told otherwise."""
        batch = [self._row(ts_ms) for ts_ms in stamps_ms or (self.clock.now_ms(),)]
        good = [row for row in batch if isinstance(row, Record)]
        self.table.store(good, [row for row in batch if not isinstance(row, Record)], None)

    def _row(self, ts_ms: int) -> Any:
        self.row += 1
        return validate(self.row, bytearray(), bytearray(b'{"ts":%d,"values":{"n":%d}}' % (ts_ms, self.row)))

    def measure_for(self, seconds: int, every_s: int = 10) -> list[int]:
        """Returns the stamps."""
        stamps = []
        for _ in range(seconds // every_s):
            self.clock.advance(every_s)
            stamps.append(self.clock.now_ms())
            self.measure()
        return stamps

    def publish(self, skip: frozenset[int] = frozenset()) -> dict[int, int]:
        """What the publisher would send now: n → ts."""
        if self.steps.due:
            self.steps.apply(skip)
        sent = [orjson.loads(row[3]) for row in self.table.pending(Stream.DATA, 0, 100_000, 1 << 40)]
        return {record["values"]["n"]: record["ts"] for record in sent}

    def acknowledge(self, *ids: int) -> None:
        self.table.mark_published([Delivery(Stream.DATA, list(ids), False)])

    def counts(self) -> dict[str, Any]:
        counts: dict[str, Any] = ArchiveMaintenance(self.database).counts()
        assert counts["accepted"] == sum(
            counts[name] for name in ("stored", "acknowledged", "pending", "evicted", "lost")
        )
        return counts

    def rows(self, sql: str) -> list[Any]:
        return self.database.rows(sql)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    device = Device(tmp_path)
    yield device
    device.database.close()


def test_what_waits_is_moved_by_the_jump_and_the_original_is_kept(
    device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    before = device.measure_for(300)
    device.set_clock(5 * HOUR_MS)
    after = device.measure_for(60)
    assert list(device.publish().values()) == [ts + 5 * HOUR_MS for ts in before] + after
    kept = [orjson.loads(text)["ts"] for (text,) in device.rows("SELECT message FROM record ORDER BY id")]
    assert kept == before + after, "the archive keeps what the controller wrote"
    assert device.rows("SELECT ts FROM record ORDER BY id") == [(ts + 5 * HOUR_MS,) for ts in before] + [
        (ts,) for ts in after
    ], "and finds it where it belongs"
    assert device.rows("SELECT * FROM moved") == [(number, 5 * HOUR_MS) for number in range(1, 31)], "flagged"
    assert device.counts()["moved"] == 30
    assert device.told == [(30, 5 * HOUR_MS)]
    assert "the clock was set 18000 s forwards: 30 records" in caplog.text


def test_once_and_no_more(device: Device) -> None:
    device.measure_for(1200)
    device.set_clock(LEAST_STEP_MS * 5)  # shorter than the time that has passed: what was moved looks stale again
    first = device.publish()
    device.clock.advance(LATE_S / 2)
    assert device.publish() == first
    device.start()
    assert device.publish() == first
    assert device.counts()["moved"] == 120


def test_noticed_before_any_batch_tells_of_it_and_over_a_restart(device: Device) -> None:
    before = device.measure_for(100)
    device.start()
    device.set_clock(HOUR_MS)
    assert list(device.publish().values()) == [ts + HOUR_MS for ts in before]


def test_a_reboot_before_anything_could_be_sent(device: Device) -> None:
    """The step is remembered by the anchors; the boot's own time means nothing any more."""
    before = device.measure_for(100)
    device.set_clock(HOUR_MS)
    after = device.measure_for(60)
    device.reboot(device.clock.now_ms() + 30_000)
    third = device.measure_for(60)
    assert list(device.publish().values()) == [ts + HOUR_MS for ts in before] + after + third


def test_the_same_in_each_boot_by_its_own_jump(device: Device) -> None:
    one = device.measure_for(60)
    device.set_clock(HOUR_MS)
    device.reboot(STALE_MS)
    two = device.measure_for(60)
    device.set_clock(3 * HOUR_MS)
    moved = list(device.publish().values())
    assert moved == one + [ts + 3 * HOUR_MS for ts in two], "nobody saw the first jump: it came with the reboot"


def test_what_was_sent_keeps_its_time(device: Device) -> None:
    before = device.measure_for(100)
    device.acknowledge(1, 2, 3)
    device.set_clock(HOUR_MS)
    sent = device.publish(skip=frozenset({4}))
    assert sent == {4: before[3]} | {number: before[number - 1] + HOUR_MS for number in range(5, 11)}
    assert device.rows("SELECT ts FROM record WHERE id <= 4") == [(ts,) for ts in before[:4]]


def test_what_was_acknowledged_and_comes_back_unproven_keeps_its_time(device: Device) -> None:
    """The server may have it: moved, it would stand there twice."""
    before = device.measure_for(40)
    unproven = UnprovenTable(device.database)
    unproven.keeps_watermarks(True)
    device.acknowledge(1, 2)
    assert unproven.connection_ended() == 2
    device.set_clock(HOUR_MS)
    assert list(device.publish().values()) == before[:2] + [ts + HOUR_MS for ts in before[2:]]


def test_a_controller_with_a_clock_of_its_own_is_left_alone(device: Device) -> None:
    """Its stamps are the true ones: an hour, and only a minute and a half, from what the machine shows."""
    for step_ms in (HOUR_MS, LEAST_STEP_MS + 30_000):
        device.reboot(STALE_MS)
        true = []
        for _ in range(30):
            device.clock.advance(10)
            true.append(device.clock.now_ms() + step_ms)
            device.measure(true[-1])
        device.set_clock(step_ms)
        assert list(device.publish().values())[-30:] == true
        assert device.counts()["moved"] == 0


def test_history_that_a_controller_sends_is_left_alone(device: Device) -> None:
    history = [STALE_MS - 86_400_000 + number for number in range(5)]
    device.measure(*history)
    device.set_clock(HOUR_MS)
    assert list(device.publish().values()) == history


def test_rows_that_lay_in_the_inbox_at_the_jump(device: Device) -> None:
    """Archived a minute later, stamped before; what is archived much later is not looked at any more."""
    device.measure_for(30)
    late = device.clock.now_ms()
    device.set_clock(HOUR_MS)
    device.publish()
    device.clock.advance(61)
    device.measure(late)
    assert device.publish()[4] == late + HOUR_MS
    device.clock.advance(LATE_S)
    device.publish()
    device.measure(late + 1)
    assert device.publish()[5] == late + 1


def test_the_first_batch_after_a_jump_that_nobody_saw(device: Device) -> None:
    """The inbox was locked from the start on: the process knows the clock of its beginning."""
    stamps = [device.clock.now_ms() + 1000, device.clock.now_ms() + 2000]
    device.clock.advance(40)
    device.set_clock(HOUR_MS)
    device.measure(*stamps, device.clock.now_ms())
    assert list(device.publish().values()) == [ts + HOUR_MS for ts in stamps] + [device.clock.now_ms()]


@pytest.mark.parametrize("step_ms", [-365 * 24 * HOUR_MS, -LEAST_STEP_MS, LEAST_STEP_MS - 1, 5000])
def test_backwards_or_by_little_moves_nothing(device: Device, step_ms: int) -> None:
    before = device.measure_for(100)
    device.set_clock(step_ms)
    after = device.measure_for(100)
    assert list(device.publish().values()) == before + after


def test_a_clock_that_was_right_and_is_set_by_hand(device: Device) -> None:
    device.synchronised = True
    before = device.measure_for(100)
    device.set_clock(HOUR_MS)
    assert list(device.publish().values()) == before


def test_only_the_first_jump_of_a_boot_sets_the_clock(device: Device) -> None:
    device.measure_for(30)
    device.set_clock(HOUR_MS)
    after = device.measure_for(30)
    device.set_clock(HOUR_MS)
    assert list(device.publish().values())[3:] == after


def test_a_clock_that_drifts_does_not_jump(device: Device) -> None:
    before = []
    for _ in range(500):
        before += device.measure_for(10)
        device.set_clock(900)
    assert list(device.publish().values()) == before


def test_rows_of_1970_were_set_aside_and_become_records(device: Device) -> None:
    device.reboot(20_000)
    before = device.measure_for(60)
    device.measure(1_767_225_600)  # in seconds: not what this clock showed
    assert device.counts()["set_aside"] == 7
    device.set_clock(STALE_MS)
    after = device.measure_for(20)
    sent = list(device.publish().values())
    assert sorted(sent) == [ts + STALE_MS for ts in before] + after
    assert (device.counts()["set_aside"], device.counts()["accepted"]) == (1, 8)
    assert [reason[:17] for (reason,) in device.rows("SELECT reason FROM dead_letter")] == ["'ts' 1767225600 i"]


def test_numbers_that_were_set_right_stay_so(device: Device) -> None:
    device.row = 1
    text = b'{"ts":%d,"values":{"n":1,"x":0.30000000000000004,"bad":NaN}}' % device.clock.now_ms()
    found = validate(1, bytearray(), bytearray(text))
    assert isinstance(found, Record)
    device.table.store([found], [], None)
    device.set_clock(HOUR_MS)
    device.publish()
    payload = orjson.loads(device.rows("SELECT payload FROM record")[0][0])
    assert payload == {"ts": STALE_MS + 20_000 + HOUR_MS, "values": {"n": 1, "x": 0.3}}


def test_many_are_moved_in_slices(device: Device) -> None:
    commits: list[int] = []
    stamps = [device.clock.now_ms() + number for number in range(SLICE * 5)]
    device.measure(*stamps)
    device.set_clock(HOUR_MS)
    device.steps.due  # noqa: B018 - notices
    device.database.committed = lambda: commits.append(1)
    assert list(device.publish().values()) == [ts + HOUR_MS for ts in stamps]
    assert len(commits) == 5


def test_an_anchor_costs_little(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """One in half a minute of work, however many batches there are; none without work; old ones go."""
    for _ in range(1000):
        device.clock.advance(0.1)
        device.measure()
    assert len(device.anchors.anchors()) <= 2 + 100_000 // ANCHOR_EVERY_MS
    monkeypatch.setattr(clock_anchors, "KEPT_ANCHORS", 2)
    device.clock.advance(ANCHOR_EVERY_MS / 1000)
    device.measure()
    assert len(device.anchors.anchors()) == 2


def test_the_gateways_own_log_lines_are_moved_too(device: Device) -> None:
    device.reboot(20_000)
    device.table.store_own(
        [(device.clock.now_ms(), b'{"ts":%d,"values":{"message":"GATEWAY - x"}}' % device.clock.now_ms())]
    )
    device.measure_for(10)
    before = device.clock.now_ms() - 10_000
    device.set_clock(STALE_MS)
    device.publish()
    [own] = [orjson.loads(row[3]) for row in device.table.pending(Stream.OWN, 0, 10, 1 << 20)]
    assert own == {"ts": before + STALE_MS, "values": {"message": "GATEWAY - x"}}
