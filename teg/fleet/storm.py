"""The whole run: a fleet connects, records, loses its server, and comes back; what was seen of it.

Each step waits for what it is about, not for a time, except where time is what is asked for (an outage).
"""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from teg.domain.errors import Unavailable
from teg.fleet.crew import Seen, Where, serve
from teg.fleet.tenant import Tenant

LOOK_EVERY_S = 0.5
DAY_S = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`backlog` records gather in each outage of `outage_s`; `every_s` is the pause between two records otherwise."""

    gateways: int
    processes: int
    switched_on_over_s: float
    every_s: float
    calm_s: float
    outages: int
    outage_s: float
    backlog: int
    cut_every: int
    patience_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """After the server's return. `busiest_second` is the largest number of connects in any window of a second."""

    busiest_second: int
    all_back_s: float
    all_drained_s: float
    records_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    gateways: int
    outages: tuple[Outage, ...]
    recorded: int
    sent: int
    missing: int
    messages_a_day: float
    bytes_up_a_day: float
    bytes_down_a_day: float
    cpu_percent: float  #: of one core, a gateway, while it is calm; the relay's share is in it


class Fleet:
    """All crews as one."""

    def __init__(self, pipes: Sequence[Connection]) -> None:
        self._pipes = pipes

    def tell(self, *command: Any) -> list[Any]:
        for pipe in self._pipes:
            pipe.send(command)
        return [pipe.recv() for pipe in self._pipes]

    def seen(self) -> Seen:
        parts: list[Seen] = self.tell("seen")
        sums = {
            name: sum(getattr(part, name) for part in parts) for name in Seen.__dataclass_fields__ if name != "connects"
        }
        return Seen(**sums, connects=tuple(sorted(moment for part in parts for moment in part.connects)))

    def wait(self, until: Callable[[Seen], bool], patience_s: float, what: str) -> float:
        """
        Raises:
            Unavailable: not within `patience_s`.
        """
        began_s = time.monotonic()
        while not until(seen := self.seen()):
            if time.monotonic() - began_s > patience_s:
                raise Unavailable(
                    f"not within {patience_s:.0f} s: {what}"
                    f" ({seen.connected} of {seen.members} connected, {seen.drained} drained)"
                )
            time.sleep(LOOK_EVERY_S)
        return time.monotonic() - began_s


@contextmanager
def manned(where: Where, tokens: Sequence[str], processes: int) -> Iterator[Fleet]:
    """The fleet in `processes` processes, ended with this block."""
    context = multiprocessing.get_context("spawn")
    started: list[tuple[BaseProcess, Connection]] = []
    try:
        for number in range(processes):
            ours, theirs = context.Pipe()
            process: BaseProcess = context.Process(target=serve, args=(theirs, where, tuple(tokens[number::processes])))
            process.start()
            theirs.close()
            started.append((process, ours))
        yield Fleet([pipe for _, pipe in started])
    finally:
        for process, pipe in started:
            _end(process, pipe)


def _end(process: BaseProcess, pipe: Connection) -> None:
    try:
        pipe.send(("stop",))
        process.join(60)
    except OSError:  # it has ended already
        process.join(1)
    if process.is_alive():
        process.kill()
    pipe.close()


def run(plan: Plan, where: Where, tenant: Tenant, say: Callable[[str], None]) -> Figures:
    """
    Raises:
        Unavailable: the server does not take what it is given, or not in time.
    """
    with tenant.devices(plan.gateways) as tokens, manned(where, tokens, plan.processes) as fleet:
        say(f"{plan.gateways} devices on the server, {plan.processes} processes")
        fleet.tell("start", plan.switched_on_over_s)
        fleet.wait(lambda seen: seen.connected == seen.members, plan.patience_s, "all gateways are connected")
        say("all connected")
        fleet.tell("record_every", plan.every_s)
        calm = _calm(plan, fleet)
        outages = []
        for number in range(1, plan.outages + 1):
            say(f"outage {number} of {plan.outages}: {plan.outage_s:.0f} s, {plan.backlog} records each")
            outages.append(_outage(plan, fleet))
            say(_said(outages[-1], plan.gateways))
        if plan.cut_every:
            say(f"each {plan.cut_every}. connection is cut")
            fleet.tell("cut", plan.cut_every)
        fleet.tell("record_every", 0.0)
        fleet.wait(lambda seen: seen.drained == seen.members, plan.patience_s, "all archives are empty")
        seen = fleet.seen()
        missing = _missing(plan, fleet, tenant, tokens)
        return Figures(
            gateways=plan.gateways,
            outages=tuple(outages),
            recorded=seen.recorded,
            sent=seen.sent_records,
            missing=missing,
            **calm,
        )


def _calm(plan: Plan, fleet: Fleet) -> dict[str, float]:
    """What a gateway costs while nothing happens to it, a day."""
    before, began_s = fleet.seen(), time.monotonic()
    time.sleep(plan.calm_s)
    after, lasted_s = fleet.seen(), time.monotonic() - began_s
    a_day = DAY_S / lasted_s / plan.gateways
    return {
        "messages_a_day": (after.publishes - before.publishes) * a_day,
        "bytes_up_a_day": (after.bytes_up - before.bytes_up) * a_day,
        "bytes_down_a_day": (after.bytes_down - before.bytes_down) * a_day,
        "cpu_percent": 100 * (after.cpu_s - before.cpu_s) / lasted_s / plan.gateways,
    }


def _outage(plan: Plan, fleet: Fleet) -> Outage:
    fleet.tell("shut")
    ends_s = time.monotonic() + plan.outage_s
    fleet.tell("record_every", 0.0)
    fleet.tell("record", plan.backlog)
    time.sleep(max(0.0, ends_s - time.monotonic()))
    waiting = fleet.seen()
    began_s = time.monotonic()
    fleet.tell("open")
    back_s = fleet.wait(lambda seen: seen.connected == seen.members, plan.patience_s, "all gateways are back")
    fleet.wait(lambda seen: seen.drained == seen.members, plan.patience_s, "all backlogs are sent")
    drained_s = time.monotonic() - began_s
    after = fleet.seen()
    fleet.tell("record_every", plan.every_s)
    return Outage(
        busiest_second=busiest_second([moment for moment in after.connects if moment >= began_s]),
        all_back_s=back_s,
        all_drained_s=drained_s,
        records_per_s=(after.sent_records - waiting.sent_records) / drained_s,
    )


def busiest_second(moments: Sequence[float]) -> int:
    """The largest number of moments within any one second; `moments` ascend."""
    most = first = 0
    for last, moment in enumerate(moments):
        while moment - moments[first] >= 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most


def _missing(plan: Plan, fleet: Fleet, tenant: Tenant, tokens: Sequence[str]) -> int:
    """Acknowledged is not stored: a server that is still at it is given time."""
    by_crew = fleet.tell("recorded_by_each")
    recorded = {
        token: count
        for number, counts in enumerate(by_crew)
        for token, count in zip(tokens[number :: plan.processes], counts, strict=True)
    }
    deadline_s = time.monotonic() + plan.patience_s
    while True:
        missing = tenant.missing(tokens, [recorded[token] for token in tokens])
        if not missing or time.monotonic() > deadline_s:
            return missing
        time.sleep(LOOK_EVERY_S)


def _said(outage: Outage, gateways: int) -> str:
    share = 100 * outage.busiest_second / gateways
    return (
        f"all back after {outage.all_back_s:.0f} s, at most {outage.busiest_second} connects in a second"
        f" ({share:.1f} %); all sent after {outage.all_drained_s:.0f} s, {outage.records_per_s:.0f} records/s"
    )
