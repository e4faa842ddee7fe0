"""How long a `ping` takes: idle, with every other worker stuck, under a backlog, with the database locked.

python -m bench.rpc [--pings 100] [--rows 200000]

Each scenario's figures are put beside the idle ones of the same run. The promise: median 250 ms, worst 1 s.
"""

import argparse
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.running import ControllerInbox, RunningGateway, wait_until

INTERVAL_S = 0.25  # four a second: below the rate limit of five


def measured(
    device: Device, pings: int, meanwhile: Callable[[], object] = lambda: None, interval_s: float = INTERVAL_S
) -> list[float]:
    """Milliseconds from the server's publish to the arrival of the answer."""
    taken = []
    for _ in range(pings):
        meanwhile()
        started = time.perf_counter()
        outcome = device.rpc("ping", timeout_s=30)
        taken.append((time.perf_counter() - started) * 1000)
        assert outcome.response == {"message": "Pong"}, outcome
        time.sleep(interval_s)
    return taken


def report(name: str, taken: list[float], idle: list[float]) -> None:
    median, worst = statistics.median(taken), max(taken)
    ratio = median / statistics.median(idle)
    print(f"{name:44} median {median:7.1f} ms   worst {worst:7.1f} ms   median / idle {ratio:5.2f}")


@contextmanager
def gateway(consumer: str = "gateway.huey", rows: int = 0) -> Iterator[tuple[RunningGateway, Device, ThingsBoard]]:
    with ThingsBoard() as server, tempfile.TemporaryDirectory() as directory:
        device = server.add_device("bench", token="T1")
        running = RunningGateway(Path(directory), server.host, server.port, "T1", TEG_RPC_RUN_COMMAND="on")
        if rows:
            inbox = ControllerInbox(running.inbox_path)
            inbox.insert_many(f'{{"ts":{1_767_225_600_000 + n},"values":{{"t":{n}.5}}}}' for n in range(rows))
            inbox.close()
        running.start(consumer)
        with running_until_end(running):
            device.wait_subscribed("v1/devices/me/rpc/request/+", timeout_s=60)
            yield running, device, server


@contextmanager
def running_until_end(running: RunningGateway) -> Iterator[None]:
    try:
        yield
    finally:
        running.kill()


def idle(pings: int) -> list[float]:
    with gateway() as (_, device, __):
        return measured(device, pings)


def stuck(pings: int) -> list[float]:
    with gateway("tests.support.blocked_gateway.huey") as (running, device, _):
        wait_until(lambda: running.log().count("stuck: ") >= 11, 30, "all workers are stuck")
        return measured(device, pings)


def command(pings: int) -> list[float]:
    """A command that keeps a core busy."""
    with gateway() as (_, device, __):
        device.rpc_async("run_command", {"command": ["sh", "-c", "yes"], "timeout_s": 60}, 90)
        return measured(device, pings)


def backlog(pings: int, rows: int) -> list[float]:
    """Pings while `rows` records are archived and published, the server taking 50 ms for each PUBACK."""
    with gateway(rows=rows) as (_, device, server):
        server.faults.puback_delay_s = 0.05
        taken = measured(device, pings)
        left = rows - len(device.records())
        print(f"{'':44} ({left} of {rows} records were still to come at the end)")
        return taken


def locked(pings: int) -> list[float]:
    """Another process holds the write lock of gateway.db all the time."""
    with gateway() as (running, device, _):
        connection = sqlite3.connect(running.data_path / "gateway.db", isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        taken = measured(device, pings)
        connection.execute("ROLLBACK")
        connection.close()
        return taken


def status(pings: int, rows: int) -> list[float]:
    """Pings with a `status` before each, over a backlog, the server taking 500 ms for each PUBACK."""
    with gateway(rows=rows) as (running, device, server):
        server.faults.puback_delay_s = 0.5
        wait_until(lambda: running.archived() >= rows, 600, "archived")
        return measured(device, pings, lambda: device.rpc_async("status", None, 30), 2 * INTERVAL_S)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--pings", type=int, default=100)
    arguments.add_argument("--rows", type=int, default=200_000)
    given = arguments.parse_args()
    base = idle(given.pings)
    report("idle", base, base)
    report("every other worker stuck", stuck(given.pings), base)
    report("run_command with endless output", command(given.pings), base)
    report(f"{given.rows} records going out", backlog(given.pings, given.rows), base)
    report("gateway.db locked by another process", locked(given.pings), base)
    report(f"a status each, {given.rows} records going out", status(given.pings, given.rows), base)


if __name__ == "__main__":
    main()
