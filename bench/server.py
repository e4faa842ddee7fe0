"""The stand-in in a process of its own: what is measured and what it is measured against use the same server."""

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import orjson

from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.server import ThingsBoard
from teg.simulator.thingsboard.telemetry_store import Depth
from teg.simulator.thingsboard.tls import ServerTls

TOKEN = "BENCHTOKEN"


class Server:
    """`reset` forgets what came; `wait(n)` returns the moments of the first and of the n-th record."""

    def __init__(self, pipe: Connection, tls: ServerTls) -> None:
        self._pipe = pipe
        self.tls = tls
        self.host, self.port = self._ask("address")

    def _ask(self, *question: Any) -> Any:
        self._pipe.send(question)
        return self._pipe.recv()

    def reset(self) -> None:
        self._ask("reset")

    def received(self) -> int:
        return int(self._ask("received"))

    def wait(self, records: int, timeout_s: float) -> tuple[float, float]:
        """Monotonic seconds of the first and the last of `records` records."""
        answer = self._ask("wait", records, timeout_s)
        assert answer is not None, f"not within {timeout_s} s: {records} records, there are {self.received()}"
        return float(answer[0]), float(answer[1])

    def arrivals(self, key: str) -> dict[int, int]:
        """Value of `key` → wall-clock ms of its first arrival, of a server that keeps what it gets (`store`)."""
        found: dict[int, int] = self._ask("arrivals", key)
        return found

    def ping(self) -> float:
        """Milliseconds until the gateway's answer is there."""
        return float(self._ask("ping"))

    def stop(self) -> None:
        self._pipe.send(("stop",))


@contextmanager
def stand_in(directory: Path, store: Depth = "count", is_gateway: bool = False) -> Iterator[Server]:
    """`is_gateway`: its device may speak for others, whose records count, too."""
    tls = ServerTls.create(directory / "tls")
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_serve, args=(theirs, directory / "tls", store, is_gateway), daemon=True
    )
    process.start()
    server = Server(ours, tls)
    try:
        yield server
    finally:
        server.stop()
        process.join(10)


def _serve(pipe: Connection, tls_directory: Path, store: Depth, is_gateway: bool) -> None:
    tls = None if is_gateway else ServerTls.in_directory(tls_directory)
    with ThingsBoard(tls=tls, store=store, packet_log=0) as server:
        device = server.add_device("bench", token=TOKEN)
        if is_gateway:
            device.make_gateway()
        base = 0

        def total() -> int:
            return sum(one.records_received for one in server.devices) if is_gateway else device.records_received

        while True:
            match pipe.recv():
                case ("address",):
                    pipe.send((server.host, server.port))
                case ("reset",):
                    base = total()
                    pipe.send(None)
                case ("received",):
                    pipe.send(total() - base)
                case ("wait", records, timeout_s):
                    pipe.send(_moments(lambda: total() - base, records, timeout_s))  # noqa: B023
                case ("arrivals", key):
                    pipe.send(_arrivals(device, key))
                case ("ping",):
                    started_s = time.perf_counter()
                    outcome = device.rpc("ping", timeout_s=30)
                    assert outcome.response == {"message": "Pong"}, outcome
                    pipe.send((time.perf_counter() - started_s) * 1000)
                case _:
                    return


def _arrivals(device: Device, key: str) -> dict[int, int]:
    found: dict[int, int] = {}
    named = f'"{key}"'.encode()
    for arrived_ms, payload in device.arrivals():
        if named in payload:
            for record in orjson.loads(payload):
                if key in record["values"]:
                    found.setdefault(record["values"][key], arrived_ms)
    return found


def _moments(received: Any, records: int, timeout_s: float) -> tuple[float, float] | None:
    deadline = time.monotonic() + timeout_s
    first = None
    while time.monotonic() < deadline:
        count = received()
        if first is None and count:
            first = time.monotonic()
        if first is not None and count >= records:
            return first, time.monotonic()
        time.sleep(0.002)
    return None
