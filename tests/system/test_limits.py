"""The server's rate limits, kept from the first packet of every session but the first."""

import time
from pathlib import Path

import pytest

from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.rate_limits import RateLimits
from teg.simulator.thingsboard.server import ThingsBoard
from teg.simulator.thingsboard.server_limits import ServerLimits
from teg.simulator.torture.link import FaultyLink
from tests.support.running import ControllerInbox, RunningGateway, wait_until

LIMITS = {
    "values": RateLimits("20:1,600:60", "10:1,300:60", "500:1,15000:60"),
    "few values": RateLimits(None, None, "50:1,3000:60"),
    "few messages": RateLimits("3:1,60:60", "3:1,60:60", None),
}
START_MS = 1_767_225_600_000


def record(number: int) -> str:
    values = ", ".join(f'"k{key}": {number}' for key in range(5))
    return f'{{"ts": {START_MS + number}, "values": {{{values}}}}}'


def closed_sessions(server: ThingsBoard) -> list[str]:
    """After the first one: that had to learn the limits, with whatever its connect had left of them."""
    reasons = [session.close_reason for session in server.device("pi-07").sessions[1:]]
    return [reason for reason in reasons if "rate limit" in reason]


@pytest.mark.slow
@pytest.mark.parametrize("name", LIMITS)
def test_limits_learned_once_are_kept_from_the_first_packet_on(tmp_path: Path, name: str) -> None:
    with ThingsBoard(limits=ServerLimits(rate_limits=LIMITS[name])) as server:
        device = server.add_device("pi-07", token="T1")
        inbox = ControllerInbox(tmp_path / "controller" / "communication_queue.db")
        inbox.insert_many(record(number) for number in range(1, 100_001))
        gateway = RunningGateway(tmp_path, server.host, server.port, "T1")
        with gateway:
            wait_until(lambda: device.records_received > 50, 30, "the backlog flows")
            server.drop_connections()
            before = device.records_received
            wait_until(lambda: device.records_received > before, 60, "it flows again")
            gateway.kill()
            before = device.records_received
            gateway.start()
            wait_until(lambda: device.records_received > before + 50, 60, "it flows in the next life")
        assert closed_sessions(server) == []
        inbox.close()


def stand_still(link: FaultyLink, device: Device, seconds: float) -> None:
    """Nothing goes through for so long, then everything that waits, and after that it flows again."""
    link.held = True
    time.sleep(seconds)
    before = device.records_received
    link.held = False
    wait_until(lambda: device.records_received > before + 50, 60, "it flows again")


def test_a_link_that_stands_still_and_then_hands_on_everything_at_once(tmp_path: Path) -> None:
    """As every mobile link does. What was sent a second at a time may be a second's worth too much in a heap."""
    with (
        ThingsBoard(limits=ServerLimits(rate_limits=LIMITS["values"])) as server,
        FaultyLink((server.host, server.port)) as link,
    ):
        device = server.add_device("pi-07", token="T1")
        inbox = ControllerInbox(tmp_path / "controller" / "communication_queue.db")
        inbox.insert_many(record(number) for number in range(1, 100_001))
        with RunningGateway(tmp_path, link.host, link.port, "T1"):
            wait_until(lambda: device.records_received > 100, 30, "the backlog flows")
            for _ in range(2):
                stand_still(link, device, 1.5)
        assert [session.close_reason for session in device.sessions if "rate limit" in session.close_reason] == []
        inbox.close()


@pytest.mark.torture
@pytest.mark.parametrize("name", LIMITS)
def test_a_backlog_gets_nine_tenths_of_what_the_limit_allows(tmp_path: Path, name: str) -> None:
    with ThingsBoard(limits=ServerLimits(rate_limits=LIMITS[name])) as server:
        device = server.add_device("pi-07", token="T1")
        inbox = ControllerInbox(tmp_path / "controller" / "communication_queue.db")
        inbox.insert_many(record(number) for number in range(1, 400_001))
        with RunningGateway(tmp_path, server.host, server.port, "T1"):
            wait_until(lambda: device.records_received > 50, 30, "the backlog flows")
            time.sleep(30.0)  # what the first seconds may burst is spent
            first, publishes, began_s = device.records_received, len(device.publishes), time.monotonic()
            time.sleep(120.0)
            span_s = time.monotonic() - began_s
            records, messages = device.records_received - first, device.publishes[publishes:]
        telemetry = sum(publish.topic == "v1/devices/me/telemetry" for publish in messages)
        shares = {
            "values": records * 5 / (250.0 * span_s),
            "few values": records * 5 / (50.0 * span_s),
            "few messages": telemetry / (1.0 * span_s),
        }
        print(f"{name}: {shares[name]:.3f} of what the limit allows")
        assert closed_sessions(server) == []
        assert shares[name] >= 0.9
        inbox.close()
