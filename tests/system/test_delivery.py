"""Nothing lost on the way: a server that crashes, one that keeps no watermarks, one that was set back."""

import random
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import orjson
import pytest

from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.running import ControllerInbox, RunningGateway, measurements, message, wait_until


@pytest.fixture
def server() -> Iterator[ThingsBoard]:
    with ThingsBoard(store="distinct", packet_log=0) as server:
        server.add_device("pi-07", token="T1")
        yield server


def gateway_for(tmp_path: Path, server: ThingsBoard) -> RunningGateway:
    return RunningGateway(tmp_path, server.host, server.port, "T1")


def have_arrived(server: ThingsBoard, last: int) -> bool:
    return measurements(1, last).items() <= server.device("pi-07").telemetry().items()


def account(gateway: RunningGateway) -> dict[str, int]:
    counters = {str(name): int(str(value)) for name, value in gateway.rows("SELECT name, value FROM counter")}
    waiting = gateway.rows("SELECT count(*) FROM outbox WHERE lane = 1") or [(0,)]
    return {**counters, "pending": int(str(waiting[0][0]))}


def has_delivered(gateway: RunningGateway, rows: int) -> bool:
    return account(gateway).get("delivered", 0) >= rows


def crash_in_a_drain(tmp_path: Path, server: ThingsBoard, rows: int, crashes: int, seed: int) -> int:
    """Returns how many points were sent twice."""
    chance = random.Random(seed)
    server.faults.store_delay_s, server.faults.pack_order = 0.5, "attributes_first"
    inbox = ControllerInbox(tmp_path / "controller" / "communication_queue.db")
    inbox.insert_many(message(number) for number in range(1, rows // 2 + 1))
    with gateway_for(tmp_path, server) as gateway:
        for crash in range(crashes):
            first = rows // 2 + 1 + crash * (rows // 2) // crashes
            last = rows // 2 + (crash + 1) * (rows // 2) // crashes
            inbox.insert_many(message(number) for number in range(first, last + 1))
            time.sleep(chance.uniform(0.0, 2.0))
            server.crash()
        wait_until(lambda: have_arrived(server, rows), 120, "everything is stored")
        wait_until(lambda: account(gateway)["pending"] == 0, 60, "everything is acknowledged")
        counts = account(gateway)
        assert (counts["accepted"], counts["delivered"]) == (rows, rows)
    inbox.close()
    assert server.device("pi-07").conflicts == []
    return server.device("pi-07").records_received - rows


def test_a_server_that_crashes_in_a_drain_loses_nothing(tmp_path: Path, server: ThingsBoard) -> None:
    crash_in_a_drain(tmp_path, server, 4_000, 3, seed=1)


@pytest.mark.torture
def test_a_server_that_crashes_twenty_times_in_a_drain_loses_nothing(tmp_path: Path, server: ThingsBoard) -> None:
    again = crash_in_a_drain(tmp_path, server, 20_000, 20, seed=2)
    print(f"20,000 records, 20 crashes: {again} records sent again")


@pytest.mark.torture
def test_a_server_that_crashes_twenty_times_at_fifty_a_second_loses_nothing(
    tmp_path: Path, server: ThingsBoard
) -> None:
    server.faults.store_delay_s, server.faults.pack_order = 0.5, "attributes_first"
    inbox = ControllerInbox(tmp_path / "controller" / "communication_queue.db")
    number = 0
    with gateway_for(tmp_path, server) as gateway:
        for _ in range(20):
            for _ in range(200):
                number += 1
                inbox.insert(message(number))
                time.sleep(0.02)
            server.crash()
        wait_until(lambda: have_arrived(server, number), 120, "everything is stored")
        wait_until(lambda: account(gateway).get("stored", 0) == number, 180, "everything is proven")
    print(f"{number} records, 20 crashes: {server.device('pi-07').records_received - number} sent again")
    inbox.close()


def cuts_without_watermarks(tmp_path: Path, cuts: int) -> None:
    with ThingsBoard(packet_log=0) as server:  # it notes what came twice
        server.add_device("pi-07", token="T1")
        server.faults.drop_client_attributes = True
        _cut(tmp_path, server, cuts)


def _cut(tmp_path: Path, server: ThingsBoard, cuts: int) -> None:
    inbox = ControllerInbox(tmp_path / "controller" / "communication_queue.db")
    number = 0
    with gateway_for(tmp_path, server) as gateway:
        for _ in range(cuts):
            for _ in range(20):
                number += 1
                inbox.insert(message(number))
            wait_until(partial(have_arrived, server, number), 60, "what was written before the cut")
            wait_until(partial(has_delivered, gateway, number), 60, "the PUBACK has come and is marked")
            server.drop_connections()
        number += 1
        inbox.insert(message(number))
        wait_until(lambda: have_arrived(server, number), 60, "the last one")
    device = server.device("pi-07")
    sent = [values["n"] for _, values in device.records() if "n" in values]
    assert sorted(sent) == list(range(1, number + 1)), "nothing is sent again for want of a proof"
    inbox.close()


@pytest.mark.slow
def test_a_server_that_keeps_no_watermarks_gets_nothing_twice(tmp_path: Path) -> None:
    cuts_without_watermarks(tmp_path, 3)


@pytest.mark.torture
def test_a_server_that_keeps_no_watermarks_gets_nothing_twice_in_twenty_cuts(tmp_path: Path) -> None:
    cuts_without_watermarks(tmp_path, 20)


@pytest.mark.slow
def test_a_restored_server_is_offered_what_it_lacks_and_gets_it_by_one_call(
    tmp_path: Path, server: ThingsBoard
) -> None:
    device = server.device("pi-07")
    inbox = ControllerInbox(tmp_path / "controller" / "communication_queue.db")
    inbox.insert_many(message(number) for number in range(1, 101))
    with gateway_for(tmp_path, server) as gateway:
        wait_until(lambda: account(gateway).get("stored", 0) == 100, 60, "the first hundred are proven")
        backup = server.backup()
        inbox.insert_many(message(number) for number in range(101, 1_501))
        wait_until(lambda: account(gateway).get("stored", 0) == 1_500, 60, "all are proven")
        server.restore(backup)
        assert not have_arrived(server, 1_500)
        gateway.wait_log("archive_republish_messages {", 60)
        offer = gateway.log().partition("archive_republish_messages ")[2].splitlines()[0]
        answer = device.rpc("archive_republish_messages", orjson.loads(offer[: offer.index("}") + 1]), timeout_s=20)
        assert "messages republished" in str(answer.response)
        wait_until(lambda: have_arrived(server, 1_500), 60, "the server has everything again")
        assert gateway.rows("SELECT missing FROM proof") == [(None,)]
    inbox.close()
