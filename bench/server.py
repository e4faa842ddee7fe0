"""The stand-in in a process of its own: what is measured and what it is measured against use the same server."""

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from teg.simulator.thingsboard.server import ThingsBoard
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

    def stop(self) -> None:
        self._pipe.send(("stop",))


@contextmanager
def stand_in(directory: Path) -> Iterator[Server]:
    tls = ServerTls.create(directory / "tls")
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs, directory / "tls"), daemon=True)
    process.start()
    server = Server(ours, tls)
    try:
        yield server
    finally:
        server.stop()
        process.join(10)


def _serve(pipe: Connection, tls_directory: Path) -> None:
    with ThingsBoard(tls=ServerTls.in_directory(tls_directory), store="count", packet_log=0) as server:
        device = server.add_device("bench", token=TOKEN)
        base = 0
        while True:
            match pipe.recv():
                case ("address",):
                    pipe.send((server.host, server.port))
                case ("reset",):
                    base = device.records_received
                    pipe.send(None)
                case ("received",):
                    pipe.send(device.records_received - base)
                case ("wait", records, timeout_s):
                    pipe.send(_moments(lambda: device.records_received - base, records, timeout_s))  # noqa: B023
                case _:
                    return


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
