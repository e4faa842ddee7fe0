"""Some of a fleet's gateways in a process of their own, told what to do over a pipe."""

import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from teg.adapters import tls
from teg.adapters.bounded_mqtt_client import BoundedClient
from teg.adapters.mqtt_session import Server
from teg.fleet.member import Member
from teg.fleet.relay import Relay

PROVERS = 8
#: Each has up to 18 open files, and paho cannot wait for a socket whose number is above 1023 (`select`).
MEMBERS_A_PROCESS = 50
#: How often it is looked whether a member owes a proof, as the real gateway's timetable does.
PROVE_EVERY_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """The server, and where each member keeps its data. `ca_cert` None: the public authorities."""

    host: str
    port: int
    use_tls: bool
    ca_cert: Path | None
    directory: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a crew has done since its start. Times are CLOCK_MONOTONIC, the same in every process."""

    members: int
    connected: int
    drained: int
    recorded: int
    sent_records: int
    publishes: int
    connects: tuple[float, ...]
    bytes_up: int
    bytes_down: int
    cpu_s: float


def serve(pipe: Connection, where: Where, tokens: tuple[str, ...]) -> None:
    """The process: one answer for each command (its name and arguments), until `stop`."""
    logging.basicConfig(level=logging.ERROR)
    threading.stack_size(256 * 1024)
    crew = Crew(where, tokens)
    try:
        while True:
            name, *arguments = pipe.recv()
            if name == "stop":
                break
            pipe.send(getattr(crew, name)(*arguments))
    finally:
        crew.stop()
        pipe.close()


class Crew:
    def __init__(self, where: Where, tokens: tuple[str, ...]) -> None:
        self._relay = Relay(where.host, where.port, _tls(where))
        server = Server(self._relay.host, self._relay.port, None, BoundedClient)
        self._members = [Member(where.directory / token, server, token) for token in tokens]
        self._stopping = threading.Event()
        self._every_s: float = 0.0
        self._changed = threading.Event()
        self._threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for target, name in ((self._record, "fleet-records"), *self._provers())
        ]

    def start(self, over_s: float) -> None:
        """One after the other, evenly over `over_s`: how a fleet is switched on is not what is measured."""
        for thread in self._threads:
            thread.start()
        pause_s = over_s / len(self._members)
        for member in self._members:
            member.start()
            time.sleep(pause_s)

    def stop(self) -> None:
        self._stopping.set()
        self._changed.set()
        self._each(Member.stop)
        self._relay.stop()

    def record(self, count: int) -> None:
        """Each member records so many at once: what gathered in an outage."""
        for member in self._members:
            member.record(count)

    def record_every(self, seconds: float) -> None:
        """From now on each member records once in so many seconds, not all at the same moment; 0: no more."""
        self._every_s = seconds
        self._changed.set()

    def shut(self) -> None:
        self._relay.shut()

    def open(self) -> None:
        self._relay.open()

    def cut(self, every: int) -> None:
        self._relay.cut(every)

    def seen(self) -> Seen:
        sessions = [member.session for member in self._members]
        return Seen(
            members=len(self._members),
            connected=sum(session.connected for session in sessions),
            drained=sum(member.drained for member in self._members),
            recorded=sum(member.recorded for member in self._members),
            sent_records=sum(session.records for session in sessions),
            publishes=sum(session.publishes for session in sessions),
            connects=tuple(self._relay.connects),
            bytes_up=self._relay.bytes_up,
            bytes_down=self._relay.bytes_down,
            cpu_s=time.process_time(),
        )

    def recorded_by_each(self) -> list[int]:
        return [member.recorded for member in self._members]

    def _each(self, work: Callable[[Member], Any]) -> None:
        with ThreadPoolExecutor(32) as pool:
            list(pool.map(work, self._members))

    def _provers(self) -> Iterator[tuple[Callable[[], None], str]]:
        """Always the same thread for a member: each thread opens its database once more."""
        for number in range(PROVERS):
            yield partial(self._prove, self._members[number::PROVERS]), f"fleet-proofs-{number}"

    def _prove(self, members: Sequence[Member]) -> None:
        while not self._stopping.wait(PROVE_EVERY_S):
            for member in members:
                member.prove()

    def _record(self) -> None:
        turn = 0
        while not self._stopping.is_set():
            pause_s = self._every_s / len(self._members) if self._every_s else None
            self._changed.wait(pause_s)
            self._changed.clear()
            if self._every_s and not self._stopping.is_set():
                turn = (turn + 1) % len(self._members)
                self._members[turn].record(1)


def _tls(where: Where) -> ssl.SSLContext | None:
    return tls.client_context(where.ca_cert) if where.use_tls else None
