"""The queue on a real Redis and a real PostgreSQL: the same gateway, end to end, also when they die under it."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.huey_app import GatewayHuey
from tasks.lanes import Lane
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.queue_libraries import environment
from tests.support.queue_servers import PostgresqlServer, QueueServer, RedisServer
from tests.support.running import PROJECT, ControllerInbox, RunningGateway, message, wait_until


@pytest.fixture(params=["redis", "postgresql"])
def queue_server(request: pytest.FixtureRequest) -> Iterator[QueueServer]:
    server = RedisServer() if request.param == "redis" else PostgresqlServer()
    try:
        server.start()
        yield server
    finally:
        server.kill()
        if isinstance(server, PostgresqlServer):
            server.remove()


class Site:
    def __init__(self, directory: Path, server: ThingsBoard, queue_url: str) -> None:
        self.device = server.add_device("pi", token="TOKEN-1")
        self.gateway = RunningGateway(
            directory, server.host, server.port, "TOKEN-1", TEG_QUEUE_URL=queue_url, **environment()
        )
        self.inbox = ControllerInbox(self.gateway.inbox_path)
        self.sent = 0

    def record(self, count: int) -> None:
        self.inbox.insert_many([message(self.sent + number) for number in range(1, count + 1)])
        self.sent += count

    def wait_all(self, timeout_s: float = 60.0) -> None:
        expected = set(range(1, self.sent + 1))
        wait_until(lambda: self.numbers() == expected, timeout_s, f"records 1 to {self.sent} on the server")

    def said(self, text: str, times: int) -> None:
        wait_until(lambda: self.gateway.log().count(text) >= times, 30, f"'{text}' {times} times in the log")

    def numbers(self) -> set[int]:
        return {values["n"] for _, values in self.device.records() if "n" in values}


@pytest.fixture
def site(tmp_path: Path, queue_server: QueueServer) -> Iterator[Site]:
    with ThingsBoard() as server:
        site = Site(tmp_path, server, queue_server.url)
        try:
            yield site
        finally:
            site.gateway.kill()
            site.inbox.close()
            print(site.gateway.log()[-6000:])


def pings(site: Site) -> bool:
    return bool(site.device.rpc("ping", timeout_s=3).response == {"message": "Pong"})


def test_records_and_calls_go_through(site: Site) -> None:
    site.gateway.start()
    site.record(5000)
    site.wait_all()
    assert pings(site)
    assert not (site.gateway.data_path / "huey_data").exists(), "no queue file beside the server"
    assert site.gateway.stop(signal.SIGTERM) == 0
    assert "Traceback" not in site.gateway.log()
    assert site.inbox.count() == 0
    assert site.gateway.archived() == 5000


def test_the_server_dies_and_comes_back(site: Site, queue_server: QueueServer) -> None:
    """Redis comes back empty: whatever was queued is gone, and nothing is lost all the same."""
    site.gateway.start()
    site.record(100)
    site.wait_all()
    for outage in (1, 2):
        queue_server.kill()
        site.record(100)
        site.said("trying again until it is back", outage)
        site.record(100)
        assert site.gateway.process is not None
        assert site.gateway.process.poll() is None, "the gateway stays up"
        queue_server.start()
        site.record(100)
        site.wait_all()
        wait_until(lambda: pings(site), 30, "calls are answered again")
        site.said("the queue is back", outage)
    assert site.gateway.stop() == 0
    assert site.inbox.count() == 0
    assert site.gateway.archived() == site.sent
    log = site.gateway.log()
    assert "Traceback" not in log
    assert log.count("trying again until it is back") == log.count("the queue is back") == 2, "said once an outage"


@pytest.mark.slow
def test_records_after_a_long_silence_go_through_while_the_queue_is_away(site: Site, queue_server: QueueServer) -> None:
    """The drainers have stopped lingering, so only a task can start them again; it runs from memory."""
    site.gateway.start()
    site.record(1)
    site.wait_all()
    queue_server.kill()
    site.gateway.wait_log("trying again until it is back")
    for _ in range(2):
        threading.Event().wait(6.0)  # until the recorder and the publisher have given up their workers
        site.record(1)
        site.wait_all()
    queue_server.start()
    site.record(1)
    site.wait_all()
    assert site.gateway.stop() == 0


def test_a_start_does_not_wait_for_the_server(site: Site, queue_server: QueueServer) -> None:
    """Records go through and calls are answered before it is there, and after."""
    queue_server.kill()
    site.record(100)
    site.gateway.start()
    site.wait_all()
    assert pings(site)
    queue_server.start()
    site.said("the queue is back", 1)
    site.record(100)
    site.wait_all()
    assert pings(site)
    assert site.gateway.stop() == 0
    assert "Traceback" not in site.gateway.log()


def test_a_stop_while_the_server_is_away_is_clean(site: Site, queue_server: QueueServer) -> None:
    site.gateway.start()
    site.record(10)
    site.wait_all()
    queue_server.kill()
    site.gateway.wait_log("trying again until it is back")
    assert site.gateway.stop() == 0
    assert "Traceback" not in site.gateway.log()


# --- the storage itself, on its own Huey -------------------------------------------------------------------


@pytest.fixture
def queue(queue_server: QueueServer) -> Iterator[GatewayHuey]:
    found = GatewayHuey()
    found.open(queue_server.url)
    yield found
    found.close()


def declare(queue: GatewayHuey, name: str, lane: Lane) -> Any:
    return queue.task(name=name, lane=lane, priority=0, expires=None)(lambda *arguments: None)


def test_lanes_triggers_and_priorities_are_the_same_everywhere(queue: GatewayHuey) -> None:
    look, work = declare(queue, "look", Lane.WORK), declare(queue, "work", Lane.RPC)
    for number in range(5):
        look()
        work(number)
    assert queue.lanes[Lane.WORK].queue_size() == 1
    assert queue.lanes[Lane.RPC].queue_size() == 5
    urgent = work.s(99)
    urgent.priority = 100
    queue.enqueue(urgent)
    queue.serve(Lane.RPC)
    taken = [queue.dequeue() for _ in range(6)]
    assert [task.args for task in taken if task] == [(99,), (0,), (1,), (2,), (3,), (4,)]


def test_a_retry_waits_in_the_servers_schedule(queue: GatewayHuey) -> None:
    work = declare(queue, "work", Lane.RPC)
    task = work.s(7, delay=0.2)
    queue.add_schedule(task)
    assert queue.pending_count() == 0
    assert queue.scheduled_count() == 1
    while not queue.pending_count():
        queue.enqueue_due()
    queue.serve(Lane.RPC)
    found = queue.dequeue()
    assert found is not None
    assert found.args == (7,)


def test_an_emptied_server_does_not_block_triggers(queue: GatewayHuey) -> None:
    look = declare(queue, "look", Lane.WORK)
    look()
    queue.lanes[Lane.WORK].flush_queue()  # type: ignore[attr-defined]
    look()
    assert queue.pending_count() == 1


OTHER_PROCESS = """
import sys
from tasks.queue import huey
from tasks.telemetry import archive_records
huey.open(sys.argv[1])
archive_records()
huey.close()
"""


def test_a_waiting_worker_gets_another_processs_task(queue: GatewayHuey, queue_server: QueueServer) -> None:
    found: list[Any] = []

    def work() -> None:
        queue.serve(Lane.TELEMETRY)
        while not found:
            found.extend(queue.lanes[Lane.TELEMETRY].dequeue() or b"")

        queue.lanes[Lane.TELEMETRY].close()  # this thread's own connection

    thread = threading.Thread(target=work)
    thread.start()
    command = [sys.executable, "-c", OTHER_PROCESS, queue_server.url]
    subprocess.run(command, cwd=PROJECT, check=True, timeout=60, env=os.environ | environment())
    thread.join(20)
    assert b"tasks.telemetry.archive_records" in bytes(found)
