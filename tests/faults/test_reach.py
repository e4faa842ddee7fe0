"""Long times in which nothing gets through, by the clock: how soon it flows again, and that nothing is lost."""

import os
import time
from pathlib import Path

import pytest

from teg.domain.server.wire import TELEMETRY
from teg.simulator.thingsboard.faults import when
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.private_network import SERVER, private_network
from tests.support.running import wait_until
from tests.support.site import Site, running_site

pytestmark = [pytest.mark.torture, pytest.mark.timeout(0)]

OUTAGE_S = 150.0


def seconds_until_delivered(site: Site) -> float:
    began_s = time.monotonic()
    site.wait_stored(site.recorded)
    return time.monotonic() - began_s


def test_a_server_that_refuses_everything_for_ten_minutes(tmp_path: Path) -> None:
    """First delivered, then refused with a row a second coming in, then taken again."""
    with ThingsBoard(packet_log=0) as server, running_site(tmp_path, server) as site:
        site.record(100)
        site.wait_delivered()
        server.faults.close_before_puback = when(lambda message: message.topic == TELEMETRY)
        refused_until_s = time.monotonic() + 600.0
        while time.monotonic() < refused_until_s:
            site.record(1)
            time.sleep(1.0)
        sessions = len(site.device.sessions)
        server.faults.clear()
        took_s = seconds_until_delivered(site)
        letters = site.dead_letters()
        print(
            f"refused for ten minutes: {site.recorded} rows, {sessions} sessions, {len(letters)} set aside,"
            f" all delivered {took_s:.1f} s after"
        )
        assert letters == []
        assert took_s <= 60.0
        site.assert_nothing_lost()


def test_a_server_that_is_away_for_a_while(tmp_path: Path) -> None:
    with ThingsBoard(packet_log=0) as server, running_site(tmp_path, server) as site:
        site.record(10)
        site.wait_delivered()
        server.stop_listening()
        site.record(10)
        time.sleep(OUTAGE_S)
        server.start_listening()
        took_s = seconds_until_delivered(site)
        print(f"the server was away for {OUTAGE_S:.0f} s: delivered {took_s:.1f} s after its return")
        assert took_s <= 30.0


@pytest.mark.skipif(os.geteuid() != 0, reason="networks of our own need root")
def test_a_network_interface_that_is_down_for_a_while(tmp_path: Path) -> None:
    with private_network(tmp_path) as network:
        with network.on_server():
            server = ThingsBoard(host=SERVER, packet_log=0).__enter__()
        site = Site(tmp_path, server)
        try:
            with network.on_device():
                site.gateway.start()
            site.device.wait_connected(30)
            site.record(10)
            site.wait_delivered()
            network.plug("down")
            site.record(10)
            time.sleep(OUTAGE_S)
            wait_until(lambda: site.gateway.archived() == 20, 10, "rows are archived meanwhile")
            network.plug("up")
            took_s = seconds_until_delivered(site)
            print(f"the interface was down for {OUTAGE_S:.0f} s: delivered {took_s:.1f} s after")
            assert took_s <= 5.0
        finally:
            site.gateway.kill()
            site.inbox.close()
            server.__exit__(None, None, None)
