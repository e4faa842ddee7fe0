"""Slow links and long backlogs: goodput, answers to calls, and what is measured now."""

import itertools
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
    goodput, pings = slow_link(tmp_path, 8.0)
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


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of a drain. `waits`: how long each fresh row took; none in a phase without."""

    waits: list[float]
    left: int  #: old rows that waited at its end
    rows_per_s: float


class Drain:
    """A backlog that is sent to a server."""

    def __init__(self, device: Device, inbox: ControllerInbox, backlog: int) -> None:
        self._device = device
        self._inbox = inbox
        self._backlog = backlog

    @property
    def left(self) -> int:
        return max(0, self._backlog - self._device.records_received)  # what the gateway says of itself counts, too

    def phase(self, seconds: float, fresh: bool) -> Phase:
        """With a fresh row a quarter of a second after the last, or without; the server is asked as often."""
        received, began_s = self._device.records_received, time.monotonic()
        waits: list[float] = []
        while self.left > 0 and time.monotonic() < began_s + seconds:
            if fresh:
                waits.append(self._fresh_row())
            until_s = time.monotonic() + 0.25
            while time.monotonic() < until_s:
                _has_arrived(self._device, -1)
                time.sleep(0.02)
        rows = self._device.records_received - received
        return Phase(waits, self.left, rows / (time.monotonic() - began_s))

    def _fresh_row(self) -> float:
        written_ms = time.time_ns() // 1_000_000
        self._inbox.insert(f'{{"ts": {written_ms}, "values": {{"fresh": {written_ms}}}}}')
        written_s = time.monotonic()
        wait_until(partial(_has_arrived, self._device, written_ms), 60, "the fresh row")
        return time.monotonic() - written_s


@contextmanager
def draining(tmp_path: Path, backlog: int, puback_delay_s: float = 0.05) -> Iterator[Drain]:
    """Rows that were archived while the server was away, from the first thousand on."""
    with ThingsBoard(store="distinct", packet_log=0) as server:
        device = server.add_device("pi-07", token="T1")
        server.faults.puback_delay_s = puback_delay_s
        inbox = ControllerInbox(tmp_path / "controller" / "communication_queue.db")
        with RunningGateway(tmp_path, server.host, server.port, "T1") as gateway:
            device.wait_connected()
            server.stop_listening()
            inbox.insert_many(message(number) for number in range(1, backlog + 1))
            wait_until(lambda: gateway.archived() >= backlog, 300, "the backlog is archived")
            server.start_listening()
            wait_until(lambda: device.records_received > 1000, 60, "the backlog flows")
            yield Drain(device, inbox, backlog)
        inbox.close()


@pytest.mark.slow
def test_fresh_rows_do_not_wait_for_the_backlog(tmp_path: Path) -> None:
    """Each was there while most of the backlog still waited: a queue would have had it come last.

    The server takes its time, so that the backlog lasts for some seconds on any machine; 400,000 rows: the deep run.
    """
    with draining(tmp_path, 60_000, puback_delay_s=0.5) as drain:
        first = drain.phase(0.1, fresh=True)
        second = drain.phase(0.1, fresh=True)
    assert first.waits
    assert second.left > 0, "the second one came while old ones still waited"


@pytest.mark.torture
@pytest.mark.timeout(0)
def test_fresh_rows_do_not_wait_for_four_hundred_thousand(tmp_path: Path) -> None:
    """With and without fresh rows by turns in one drain, A B B A: what else the machine does takes from both alike."""
    phases: dict[bool, list[Phase]] = {True: [], False: []}
    for number in range(6):
        with draining(tmp_path / str(number), 400_000) as drain:
            drain.phase(1.0, fresh=False)  # the window opens
            for fresh in itertools.cycle((False, True, True, False)):
                phase = drain.phase(0.4, fresh)
                if not phase.left:
                    break  # it ended in the middle of a turn
                phases[fresh].append(phase)
    waits = [wait for phase in phases[True] for wait in phase.waits]
    beside, alone = (statistics.mean(phase.rows_per_s for phase in phases[fresh]) for fresh in (True, False))
    print(
        f"fresh among 400,000: median {statistics.median(waits):.2f} s, worst {max(waits):.2f} s of {len(waits)};"
        f" {beside:.0f} rows/s in {len(phases[True])} turns beside, {alone:.0f} in {len(phases[False])} alone:"
        f" {beside / alone:.2f}"
    )
    assert statistics.median(waits) <= 2.0
    assert max(waits) <= 5.0
    assert beside >= 0.7 * alone
