"""A real gateway whose clock is set while records wait."""

import time
from contextlib import closing
from pathlib import Path

import pytest

from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.running import ControllerInbox, RunningGateway, message, wait_until

DAY_MS = 86_400_000


def set_clock(path: Path, off_by_ms: int) -> None:
    new = path.with_suffix(".new")
    new.write_text(str(off_by_ms))
    new.replace(path)


@pytest.mark.parametrize("off_by_ms", [-3 * DAY_MS, -1_700_000_000_000], ids=["where it stopped", "1970"])
def test_records_of_before_the_clock_was_set_arrive_with_their_true_time(tmp_path: Path, off_by_ms: int) -> None:
    """Ten records while the server is away and the clock is wrong; a kill; the clock is set; the server comes back."""
    clock = tmp_path / "clock"
    set_clock(clock, off_by_ms)
    with ThingsBoard() as server:
        device = server.add_device("pi", token="T1")
        server.stop_listening()
        gateway = RunningGateway(tmp_path / "site", server.host, server.port, "T1", CLOCK_OFF_BY=str(clock))
        gateway.start(target="tests.support.shifted_gateway.huey")
        with closing(ControllerInbox(gateway.inbox_path)) as inbox:
            try:
                gateway.wait_log("gateway started")
                began_ms = time.time_ns() // 1_000_000
                for number in range(10):  # a millisecond apart: two of the same one would be one on the server
                    inbox.insert(message(number, began_ms + off_by_ms))
                wait_until(lambda: inbox.count() == 0, 60, "all are archived")
                gateway.kill()
                (own_lines,) = gateway.rows("SELECT count(*) FROM record WHERE source_row IS NULL")[0]
                set_clock(clock, 0)
                gateway.start(target="tests.support.shifted_gateway.huey")
                server.start_listening()
                device.wait_for(lambda _: count(device.telemetry()) == 10, 90, "all arrive")
                stamps = [ts for key, ts in device.telemetry() if key == "n"]
                slack_ms = 500  # the clock is read twice: by the boot's time, and by the wall
                assert sorted(ts - began_ms for ts in stamps)[0] >= -slack_ms
                assert sorted(ts - began_ms for ts in stamps)[-1] <= 10 + slack_ms
                moved = "SELECT count(*) FROM moved m JOIN record r ON r.id = m.record_id WHERE r.source_row IS"
                assert gateway.rows(f"{moved} NOT NULL") == [(10,)]
                # the gateway's own lines of that time were stamped by the same clock
                assert gateway.rows(f"{moved} NULL") == [(own_lines,)]
                assert gateway.rows(f"SELECT count(*) FROM record WHERE ts < {began_ms - 60_000}") == [(0,)]
                account = "SELECT value FROM counter WHERE name IN ('accepted', 'set_aside') ORDER BY name"
                assert gateway.rows(account)[:1] == [(10,)]
            finally:
                gateway.kill()


def count(telemetry: dict[tuple[str, int], object]) -> int:
    return sum(1 for key, _ in telemetry if key == "n")
