"""A real gateway process and everything that can happen to it and to its link: nothing is lost."""

import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from teg.domain.telemetry.in_flight import WINDOW
from teg.simulator.thingsboard.faults import every, next_n, when
from teg.simulator.thingsboard.rate_limits import RateLimits
from teg.simulator.thingsboard.server import ThingsBoard
from teg.simulator.thingsboard.server_limits import ServerLimits
from tests.support.running import remove_tree, wait_until
from tests.support.site import Site, running_site
from tests.support.stand_in_client import PahoDevice


@pytest.fixture
def server() -> Iterator[ThingsBoard]:
    with ThingsBoard(packet_log=0) as server:
        yield server


# --- the process


@pytest.mark.slow
def test_kill_9_at_ten_random_moments_loses_nothing(tmp_path: Path, server: ThingsBoard) -> None:
    seed = time.time_ns() % 1_000_000
    print(f"seed {seed}")
    moments = random.Random(seed)
    server.faults.puback_delay_s = 0.2  # a slow server: the drain lasts over all the lives
    site = Site(tmp_path, server)
    site.record(15_000, filler=800)
    for life in range(10):
        site.gateway.start()
        if life % 2:
            time.sleep(moments.uniform(0.1, 1.5))  # any moment of a start
        else:
            site.wait_stored(site.stored() + 1)
            time.sleep(moments.uniform(0.0, 0.8))  # any moment of a drain
        site.record(200)
        time.sleep(moments.uniform(0.0, 0.1))
        site.gateway.kill()
    killed_at = site.stored()
    server.faults.clear()
    with site.gateway:
        site.wait_delivered()
        assert site.gateway.stop() == 0
    site.assert_nothing_lost()
    twice = site.device.duplicates // 2  # two keys a row
    print(f"{killed_at} of {site.recorded} rows were delivered before the last kill, {twice} came twice")
    assert 0 < killed_at < site.recorded, "the kills did not meet the drain"
    assert twice <= 10 * WINDOW * 60_000 / 850, "a kill repeats at most the window of unmarked publishes"
    site.inbox.close()


def test_a_deleted_queue_loses_nothing(tmp_path: Path, server: ThingsBoard) -> None:
    server.faults.puback_delay_s = 0.2
    site = Site(tmp_path, server)
    site.record(8_000, filler=800)
    site.gateway.start()
    site.device.wait_for(lambda _: site.stored() > 0, 30, "some rows")
    site.gateway.kill()
    assert 0 < site.stored() < 8000
    shutil.rmtree(site.gateway.data_path / "huey_data")
    server.faults.clear()
    with site.gateway:
        site.record(100)
        site.wait_delivered()
        remove_tree(site.gateway.data_path / "huey_data")  # and while it runs
        site.record(100)
        site.wait_delivered()
        assert site.gateway.stop() == 0
    site.assert_nothing_lost()
    site.inbox.close()


def received_twice(site: Site) -> set[int]:
    """Numbers of the rows that have come more than once."""
    received = Counter(values["n"] for _, values in site.device.records() if "n" in values)
    return {number for number, times in received.items() if times > 1}


def test_a_stop_in_the_middle_of_a_drain_sends_only_the_unproven_twice(tmp_path: Path, server: ThingsBoard) -> None:
    """What is on its way at the stop is waited for; what is acknowledged only goes again (decision 0014)."""
    server.faults.puback_delay_s = 0.2
    site = Site(tmp_path, server)
    site.record(8_000, filler=800)
    site.gateway.start()
    site.wait_stored(500)
    assert site.gateway.stop() == 0
    assert 0 < site.stored() < 8000
    unproven = site.unproven()
    server.faults.clear()
    with site.gateway:
        wait_until(lambda: unproven <= received_twice(site), 60, "what was not proven goes again")
        site.wait_delivered()
    site.assert_nothing_lost()
    assert received_twice(site) == unproven
    site.device.assert_quiet_after_disconnect()
    site.inbox.close()


def test_a_server_that_is_gone_for_a_while_gets_everything_later(tmp_path: Path, server: ThingsBoard) -> None:
    with running_site(tmp_path, server) as site:
        site.record(100)
        site.wait_delivered()
        wait_until(lambda: site.counters().get("stored") == 100, 60, "proven: what is not goes again")
        server.stop_listening()
        for _ in range(10):
            site.record(500)
            time.sleep(0.2)
        wait_until(lambda: site.inbox.count() == 0, 30, "archived while offline")
        wait_until(lambda: site.pending() == 5000, 10, "waiting for the server")
        site.assert_account()
        assert site.gateway.process is not None
        assert site.gateway.process.poll() is None
        server.start_listening()
        site.wait_delivered()
        site.assert_nothing_lost()
        assert site.device.duplicates == 0


def test_a_start_without_a_server_archives_all_the_same(tmp_path: Path, server: ThingsBoard) -> None:
    server.stop_listening()
    site = Site(tmp_path, server)
    site.record(1000)
    with site.gateway:
        wait_until(lambda: site.inbox.count() == 0, 30, "archived")
        server.start_listening()
        site.wait_delivered()
    site.assert_nothing_lost()
    site.inbox.close()


def test_server_restarts_in_mid_drain_lose_nothing(tmp_path: Path, server: ThingsBoard) -> None:
    server.faults.puback_delay_s = 0.05
    site = Site(tmp_path, server)
    site.record(15_000, filler=800)
    with site.gateway:
        for share in (1, 2, 3):
            site.wait_stored(share * 3000)
            server.restart() if share % 2 else server.reset_connections()
            site.device.wait_for(lambda device: len(device.sessions) > share, 30, "back")  # noqa: B023
        site.wait_delivered()
        assert len(site.device.sessions) >= 4
        assert site.dead_letters() == []
    site.assert_nothing_lost()
    site.inbox.close()


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["slow", "out of order", "close before"])
def test_acknowledgements_that_come_as_they_like(tmp_path: Path, server: ThingsBoard, fault: str) -> None:
    if fault == "slow":
        server.faults.puback_delay_s = 1.0
    elif fault == "out of order":
        server.faults.puback_out_of_order = 7
    else:
        server.faults.close_before_puback = every(25, times=3)
    site = Site(tmp_path, server)
    site.record(4000, filler=800)
    with site.gateway:
        site.wait_delivered()
        assert site.dead_letters() == []
    site.assert_nothing_lost()
    if fault != "close before":
        assert site.device.duplicates == 0
        assert len(site.device.sessions) == 1
    site.inbox.close()


@pytest.mark.slow
def test_a_lost_acknowledgement_is_made_up_for(tmp_path: Path, server: ThingsBoard) -> None:
    server.faults.drop_puback = when(lambda publish: b'"n": 777' in publish.payload, times=1)
    site = Site(tmp_path, server)
    site.record(2000, filler=800)
    with site.gateway:
        site.gateway.wait_log("no PUBACK for 45 s", 90)
        site.wait_delivered()
        assert site.dead_letters() == []
    site.assert_nothing_lost()
    site.inbox.close()


def test_connack_3_is_waited_out(tmp_path: Path, server: ThingsBoard) -> None:
    server.faults.connack_codes = [3, 3, 3]
    site = Site(tmp_path, server)
    site.record(10)
    with site.gateway:
        site.wait_delivered()
        assert site.gateway.log().count("limits our connects (CONNACK 3)") >= 3
    site.inbox.close()


def test_a_wrong_token_is_said_and_its_correction_taken_up(tmp_path: Path, server: ThingsBoard) -> None:
    site = Site(tmp_path, server, token="wrong")
    site.record(10)
    with site.gateway:
        site.gateway.wait_log("does not know this access token (CONNACK 5)")
        assert site.gateway.token_path.read_text() == "wrong"  # never deleted, never changed
        site.gateway.token_path.write_text("T1\n")
        site.wait_delivered()
        assert "T1" not in site.gateway.log()
        credentials = site.device.revoke_token()
        site.gateway.wait_log("CONNACK 5); check the token file")
        site.record(10)
        site.device.restore(credentials)
        site.wait_delivered()
    site.assert_nothing_lost()
    site.inbox.close()


def test_a_second_session_with_our_token_is_said_plainly(tmp_path: Path, server: ThingsBoard) -> None:
    with running_site(tmp_path, server) as site:
        for number in range(1, 4):
            site.wait_connections(number)
            time.sleep(0.3)  # nothing of ours is on its way: the other one came without a reason of ours
            PahoDevice("T1").opened(server.host, server.port).close()
        # How sure it is depends on the rhythm, which a busy machine spoils.
        site.gateway.wait_log("another program or a second device (a cloned SD card?) uses the same access token", 30)
        site.record(5)
        site.wait_delivered()


# --- poison and limits


@pytest.mark.slow
def test_one_poisoned_record_is_set_aside_and_the_rest_flows(tmp_path: Path, server: ThingsBoard) -> None:
    server.faults.poison = when(lambda publish: b"venom" in publish.payload)
    site = Site(tmp_path, server)
    site.record(1500)
    poison = '{"ts": 1767225600000, "values": {"p": "venom"}}'
    site.inbox.insert(poison)
    site.record(1500)
    with site.gateway:
        site.wait_delivered(180)
        wait_until(lambda: site.dead_letters(), 120, "the culprit is set aside")
        site.record(100)
        site.wait_delivered()
        [(kept, reason)] = site.dead_letters()
    assert kept == poison.encode()
    assert "closes the connection whenever this record is sent" in reason
    assert site.counters()["set_aside"] == 1
    site.assert_nothing_lost()
    print(f"{len(site.device.sessions)} connections to find one record of 3000")
    assert len(site.device.sessions) <= 25
    site.inbox.close()


def test_the_servers_rate_limits_are_respected(tmp_path: Path) -> None:
    """20 messages and 500 points a second; an array of 60 kB would hold more points than the bucket ever has."""
    limits = RateLimits(messages="20:1,600:60", telemetry_messages="20:1", telemetry_data_points="500:1")
    with ThingsBoard(limits=ServerLimits(rate_limits=limits), packet_log=0) as server:
        site = Site(tmp_path, server)
        site.record(4000)
        with site.gateway:
            site.wait_delivered()
            assert site.dead_letters() == []
            closed = [session.close_reason for session in site.device.sessions if not session.open]
            print(f"{len(site.device.sessions)} sessions; closed: {closed}")
            assert closed == []
        site.assert_nothing_lost()
        site.inbox.close()


@pytest.mark.slow
def test_disconnects_again_and_again_cost_little(tmp_path: Path, server: ThingsBoard) -> None:
    server.faults.close_before_puback = next_n(3)
    with running_site(tmp_path, server) as site:
        site.record(500)
        site.wait_delivered()
        assert site.dead_letters() == []
        site.assert_nothing_lost()
