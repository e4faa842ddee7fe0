"""A real gateway process and everything that can happen to it and to its link: nothing is lost."""

import json
import random
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from teg.domain.telemetry.in_flight import WINDOW
from teg.simulator.thingsboard.faults import every, next_n, when
from teg.simulator.thingsboard.rate_limits import RateLimits
from teg.simulator.thingsboard.server import ThingsBoard
from teg.simulator.thingsboard.server_limits import ServerLimits
from tests.support.running import message, remove_tree, wait_until
from tests.support.site import Site, running_site
from tests.support.stand_in_client import PahoDevice


@pytest.fixture
def server() -> Iterator[ThingsBoard]:
    with ThingsBoard(packet_log=0) as server:
        yield server


# --- the process


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


def test_a_stop_in_the_middle_of_a_drain_sends_nothing_twice(tmp_path: Path, server: ThingsBoard) -> None:
    server.faults.puback_delay_s = 0.2
    site = Site(tmp_path, server)
    site.record(8_000, filler=800)
    site.gateway.start()
    site.device.wait_for(lambda _: site.stored() > 0, 30, "some rows")
    assert site.gateway.stop() == 0
    assert 0 < site.stored() < 8000
    server.faults.clear()
    with site.gateway:
        site.wait_delivered()
    site.assert_nothing_lost()
    assert site.device.duplicates == 0
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


# --- the inbox


def test_a_locked_inbox_holds_nothing_up_and_loses_nothing(tmp_path: Path, server: ThingsBoard) -> None:
    with running_site(tmp_path, server) as site:
        lock = site.inbox.connection
        lock.execute("BEGIN IMMEDIATE")
        lock.execute("INSERT INTO messages (type, message) VALUES ('m', ?)", (message(1),))
        lock.execute("COMMIT")
        lock.execute("BEGIN IMMEDIATE")
        site.recorded = 1
        site.device.wait_for(lambda _: site.stored() == 1, 20, "published while the inbox is locked")
        site.inbox.heartbeat(1_767_225_600_000)
        time.sleep(12)
        assert site.gateway.rows("SELECT count(*) FROM record WHERE kind = 0") == [(1,)]
        lock.execute("COMMIT")
        site.record(100)
        site.wait_delivered()
        site.assert_nothing_lost()
        assert site.device.duplicates == 0


def test_an_inbox_that_comes_later_and_one_that_is_created_anew(tmp_path: Path, server: ThingsBoard) -> None:
    site = Site(tmp_path, server)
    site.inbox.close()
    shutil.rmtree(site.gateway.controller_path)
    with site.gateway:
        site.device.wait_connected(30)
        site.gateway.controller_path.mkdir()
        for _ in range(3):
            site.inbox = type(site.inbox)(site.inbox.path)
            site.record(50)  # the same ids each time
            site.wait_delivered()
            site.inbox.close()
            for path in site.gateway.controller_path.iterdir():
                if path.is_file():
                    path.unlink(missing_ok=True)
        remove_tree(site.gateway.controller_path)
        site.gateway.controller_path.mkdir()
        site.inbox = type(site.inbox)(site.inbox.path)
        site.record(50)
        site.wait_delivered()
    site.assert_nothing_lost()
    site.inbox.close()


def test_a_field_controller_never_meets_a_locked_inbox(tmp_path: Path, server: ThingsBoard) -> None:
    """5 s of patience, a passive checkpoint after each insert, exit on any error: through a drain of 50,000 rows."""
    site = Site(tmp_path, server)
    site.record(50_000)
    controller = sqlite3.connect(site.inbox.path, isolation_level=None)  # its time-out is 5 s by default
    inserts = 0
    with site.gateway:
        while (site.inbox.count() > 0 or inserts < 200) and inserts < 20_000:
            controller.execute("BEGIN IMMEDIATE")
            site.recorded += 1
            inserts += 1
            controller.execute("INSERT INTO messages (type, message) VALUES ('m', ?)", (message(site.recorded),))
            controller.execute("COMMIT")
            controller.execute("PRAGMA wal_checkpoint(PASSIVE)")
            time.sleep(0.002)
        site.wait_delivered()
    site.assert_nothing_lost()
    controller.close()
    site.inbox.close()


HOSTILE: list[Any] = [
    "",
    "hello",
    None,
    b"\x00\xff blob",
    b'{"ts": 1767225600001, "values": {"n": 1}}',
    42,
    "[]",
    "[" * 5000 + "]" * 5000,
    '{"values": {"a": 1}}',
    '{"ts": "1767225600123", "values": {"a": 1}}',
    '{"ts": true, "values": {"a": 1}}',
    '{"ts": NaN, "values": {"a": 1}}',
    '{"ts": -5, "values": {"a": 1}}',
    '{"ts": 1767225600, "values": {"a": 1}}',
    '{"ts": 1767225600123}',
    '{"ts": 1767225600123, "values": {}}',
    '{"ts": 1767225600123, "values": [1, 2]}',
    '{"ts": 1767225600123, "values": {"a": NaN}}',
    '{"ts": 1767225600123, "values": {"' + "k" * 300 + '": 1}}',
    '{"ts": 1767225600123, "values": {"a": "' + "x" * 200_000 + '"}}',
    '{"ts": 1767225600123, "values": {"a": ' + "[" * 5000 + "]" * 5000 + "}}",
    "x" * 3_000_000,
]


def test_hostile_rows_among_good_ones_hold_nothing_up(tmp_path: Path, server: ThingsBoard) -> None:
    with running_site(tmp_path, server) as site:
        for text in HOSTILE:
            site.record(20)
            site.inbox.insert(text, row_type="measurement")
            site.inbox.insert(text, row_type=None)
        site.record(20)
        site.inbox.connection.execute(
            "INSERT INTO messages (type, message) VALUES ('m', CAST(? AS TEXT))", (b'{"ts": 1, "\xff": 1}',)
        )
        site.wait_delivered()
        letters = site.dead_letters()
        assert len(letters) == 2 * len(HOSTILE) + 1
        assert all(reason for _, reason in letters)
        assert site.counters()["set_aside"] == len(letters)
        site.assert_nothing_lost()
        assert "Traceback" not in site.gateway.log()


def test_log_records_are_published_and_not_kept(tmp_path: Path, server: ThingsBoard) -> None:
    with running_site(tmp_path, server) as site:
        for number, row_type in enumerate(("log", "log_warning", "catalog"), start=1):
            text = {"ts": 1_767_225_600_000 + number, "values": {"severity": "INFO", "message": row_type}}
            site.inbox.insert(json.dumps(text), row_type)
        site.device.wait_for(
            lambda d: {"log", "log_warning", "catalog"} <= {str(value) for value in d.telemetry().values()},
            20,
            "all three",
        )
        wait_until(lambda: site.pending() == 0, 20, "everything is marked")
        kept = "SELECT message FROM record WHERE source_row IS NOT NULL"
        wait_until(lambda: len(site.gateway.rows(kept)) == 1, 120, "the others, proven to be stored, are gone")
        assert [json.loads(str(text))["values"]["message"] for (text,) in site.gateway.rows(kept)] == ["catalog"]
        site.assert_account()


def test_disconnects_again_and_again_cost_little(tmp_path: Path, server: ThingsBoard) -> None:
    server.faults.close_before_puback = next_n(3)
    with running_site(tmp_path, server) as site:
        site.record(500)
        site.wait_delivered()
        assert site.dead_letters() == []
        site.assert_nothing_lost()
