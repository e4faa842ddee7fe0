"""Slow links and long backlogs: goodput, answers to calls, and what is measured now."""

import statistics
import time
from functools import partial
from pathlib import Path

import pytest

from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.running import ControllerInbox, RunningGateway, message, wait_until
from tests.support.throttled_link import ThrottledLink

LINK_BYTES_PER_S = 1_000


def slow_link(tmp_path: Path, seconds: float) -> tuple[float, list[float]]:
    """Returns the share of the link that carried telemetry, and how long each `ping` took."""
    with ThingsBoard() as server, ThrottledLink((server.host, server.port), LINK_BYTES_PER_S) as link:
        device = server.add_device("pi-07", token="T1")
        inbox = ControllerInbox(tmp_path / "controller" / "communication_queue.db")
        inbox.insert_many(message(number) for number in range(1, 20_001))
        pings = []
        with RunningGateway(tmp_path, "127.0.0.1", link.port, "T1"):
            wait_until(lambda: device.records_received > 0, 60, "the first rows are through")
            first, began_s = device.bytes_received, time.monotonic()
            while time.monotonic() < began_s + seconds:
                asked_s = time.monotonic()
                outcome = device.rpc("ping", timeout_s=30)
                assert outcome.response == {"message": "Pong"}
                pings.append(time.monotonic() - asked_s)
                time.sleep(4.0)  # the answers themselves are to take little of the link
            span_s = time.monotonic() - began_s
        assert len(device.sessions) == 1, "no time-out while bytes still move"
        inbox.close()
        return (device.bytes_received - first) / (span_s * LINK_BYTES_PER_S), pings


def test_a_link_of_one_kilobyte_a_second_carries_telemetry_and_answers(tmp_path: Path) -> None:
    """Figures: the deep run. Here: every call is answered, in one session, while the backlog is being carried."""
    goodput, pings = slow_link(tmp_path, 20.0)
    assert goodput > 0
    assert pings


@pytest.mark.torture
def test_a_link_of_one_kilobyte_a_second_for_minutes(tmp_path: Path) -> None:
    goodput, pings = slow_link(tmp_path, 180.0)
    print(
        f"1 kB/s: goodput {goodput:.2f} of the link, ping median {statistics.median(pings):.1f} s,"
        f" worst {max(pings):.1f} s"
    )
    assert goodput >= 0.7
    assert max(pings) <= 10.0


def _has_arrived(device: Device, written_ms: int) -> bool:
    return bool(device.latest("fresh") == written_ms)


def fresh_during_backlog(
    tmp_path: Path, backlog: int, most_s: float, fresh: bool = True
) -> tuple[list[float], float, list[int]]:
    """A fresh row a quarter of a second; returns how long each took, rows a second, and the old rows left each time."""
    with ThingsBoard(store="distinct", packet_log=0) as server:
        device = server.add_device("pi-07", token="T1")
        server.faults.puback_delay_s = 0.05
        inbox = ControllerInbox(tmp_path / "controller" / "communication_queue.db")
        with RunningGateway(tmp_path, server.host, server.port, "T1") as gateway:
            device.wait_connected()
            server.stop_listening()
            inbox.insert_many(message(number) for number in range(1, backlog + 1))
            wait_until(lambda: gateway.archived() >= backlog, 300, "the backlog is archived")
            server.start_listening()
            wait_until(lambda: device.records_received > 1000, 60, "the backlog flows")
            first, began_s = device.records_received, time.monotonic()
            waits: list[float] = []
            left: list[int] = []
            while device.records_received < backlog and time.monotonic() < began_s + most_s:
                if not fresh:  # asked for as often as a fresh row is: the asking costs the server, too
                    _has_arrived(device, -1)
                    time.sleep(0.02)
                    continue
                written_ms = time.time_ns() // 1_000_000
                inbox.insert(f'{{"ts": {written_ms}, "values": {{"fresh": {written_ms}}}}}')
                written_s = time.monotonic()
                wait_until(partial(_has_arrived, device, written_ms), 60, "the fresh row")
                waits.append(time.monotonic() - written_s)
                left.append(backlog - device.records_received)
                time.sleep(0.25)
            rate = (device.records_received - first) / (time.monotonic() - began_s)
        inbox.close()
        return waits, rate, left


def test_fresh_rows_do_not_wait_for_the_backlog(tmp_path: Path) -> None:
    """Each was there while most of the backlog still waited: a queue would have had it come last."""
    waits, _, left = fresh_during_backlog(tmp_path, 400_000, 5.0)
    assert len(waits) >= 3
    assert left[1] > 0, "the second one came while old ones still waited"


@pytest.mark.torture
def test_fresh_rows_do_not_wait_for_four_hundred_thousand(tmp_path: Path) -> None:
    waits: list[float] = []
    rates: list[tuple[float, float]] = []
    for number in range(3):
        _, alone, _ = fresh_during_backlog(tmp_path / f"alone-{number}", 400_000, 300.0, fresh=False)
        some, rate, _ = fresh_during_backlog(tmp_path / f"fresh-{number}", 400_000, 300.0)
        waits += some
        rates.append((rate, alone))
    rate, alone = sorted(rates, key=lambda pair: pair[0] / pair[1])[1]
    print(
        f"fresh among 400,000: median {statistics.median(waits):.2f} s, worst {max(waits):.2f} s of {len(waits)};"
        f" {rate:.0f} rows/s meanwhile, {alone:.0f} alone: {rate / alone:.2f}"
    )
    assert statistics.median(waits) <= 2.0
    assert max(waits) <= 5.0
    assert rate >= 0.7 * alone
