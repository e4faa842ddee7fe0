"""`teg torture`: the faults of months in minutes, and what became of every record."""

import sqlite3
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

from teg.simulator.demo.children import refuse_writes
from teg.simulator.torture.books import Account
from teg.simulator.torture.link import FaultyLink
from teg.simulator.torture.schedule import Schedule
from teg.simulator.torture.site import TortureSite

#: After the faults: how long until everything must have arrived.
SETTLE_S = 180.0


@dataclass(frozen=True, slots=True)
class Report:
    account: Account
    faults: dict[str, int]
    fsync_s: list[float]

    @property
    def verdict(self) -> str:
        """Empty when everything is as it should be."""
        account = self.account
        troubles = {
            f"{account.lost} records are lost": account.lost,
            f"{account.doubled} records were archived twice": account.doubled,
            f"{account.pending + account.inbox} records are stuck": not account.settled,
            f"{account.evicted} records were evicted": account.evicted,
            f"{account.counted_lost} records are counted as lost": account.counted_lost,
            "the account of the gateway is not exact": not account.exact,
        }
        return ", ".join(text for text, is_so in troubles.items() if is_so)

    def lines(self) -> list[str]:
        account = self.account
        return [
            "faults: " + ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items())),
            f"account: recorded {account.recorded}, on the server {account.on_server}, lost {account.lost},"
            f" archived twice {account.doubled}, sent again {account.again}",
            f"gateway: accepted {account.accepted} = delivered {account.delivered} + pending {account.pending}"
            f" + evicted {account.evicted} + lost {account.counted_lost}; set aside {account.set_aside}",
            "fsync: " + fsync_text(self.fsync_s),
            f"verdict: {self.verdict or 'nothing is lost'}",
        ]


def fsync_text(durations_s: list[float]) -> str:
    if len(durations_s) < 2:
        return "not measured"
    cuts = quantiles(durations_s, n=100, method="inclusive")
    median, high, longest = (round(value * 1000, 1) for value in (cuts[49], cuts[98], max(durations_s)))
    return f"median {median} ms, 99 % within {high} ms, longest {longest} ms, of {len(durations_s)}"


def schedule_of(site: TortureSite, seed: int) -> Schedule:
    """What can be done to a gateway without root, and without hurting anybody else on this machine."""
    schedule = Schedule(seed, lambda: _produce(site, schedule))
    draw, faults = schedule.random, site.server.faults
    schedule.add("kill -9", site.kill)
    schedule.add("stop", site.stop)
    schedule.add("pause", lambda: site.pause(draw.uniform(0.1, 1.0)))
    schedule.add("queue deleted", site.remove_queue)
    schedule.add("acknowledgements late", lambda: setattr(faults, "puback_delay_s", draw.choice([0.0, 0.05, 0.3])))
    schedule.add("server restarts", site.server.restart)
    schedule.add_lasting("disk full", lambda: _refuse_writes(site, True), lambda: _refuse_writes(site, False))
    add_link_faults(schedule, site.link)
    for name, path in (("archive locked", site.database), ("inbox locked", site.inbox)):
        _add_lock(schedule, name, site, path)
    return schedule


def add_link_faults(schedule: Schedule, link: FaultyLink) -> None:
    draw = schedule.random
    schedule.add("connections reset", link.reset)
    schedule.add("connections half-open", link.lose)

    def add(name: str, attribute: str, begin: Callable[[], float], end: float) -> None:
        schedule.add_lasting(
            name, lambda: setattr(link, attribute, begin()), lambda: setattr(link, attribute, type(end)(end))
        )

    add("link slow", "bytes_per_s", lambda: draw.choice([2000, 20_000]), 0)
    add("link delayed", "delay_s", lambda: draw.uniform(0.05, 0.5), 0.0)
    add("link dead", "held", lambda: True, False)
    schedule.add_lasting("server away", link.cut_off, lambda: setattr(link, "refusing", False))


def _add_lock(schedule: Schedule, name: str, site: TortureSite, path: Path) -> None:
    held = ExitStack()
    schedule.add_lasting(name, lambda: held.enter_context(site.locked(path)), held.close)


def _produce(site: TortureSite, schedule: Schedule) -> None:
    site.running.check()
    if not schedule.lasts("inbox locked"):
        site.producer.produce(schedule.random.randrange(1, 150))
    time.sleep(schedule.random.uniform(0.0, 0.4))


def _refuse_writes(site: TortureSite, refused: bool) -> None:
    """As on a full disk, which is not filled; a process that was killed meanwhile took its limit with it."""
    refuse_writes(site.running.pid, refused)


def torture(
    site: TortureSite, seed: int, seconds: float, progress: Callable[[str], object], steps: int = 1 << 60
) -> Report:
    """Faults for so many seconds, then everything is healed and has `SETTLE_S` to arrive.

    Raises:
        ChildFailed, RuntimeError, TimeoutError: the gateway ended by itself, or does not start or stop.
    """
    schedule = schedule_of(site, seed)
    site.start()
    site.wait_up()
    end_s = time.monotonic() + seconds
    try:
        while (now_s := time.monotonic()) < end_s and sum(schedule.counts.values()) < steps:
            schedule.run(min(end_s, now_s + 10.0), steps - sum(schedule.counts.values()))
            progress(f"{len(site.producer.recorded)} recorded, {sum(schedule.counts.values())} faults")
    finally:
        schedule.heal()
        site.link.heal()
        site.server.faults.clear()
    return Report(_settled(site), dict(schedule.counts), site.producer.fsync_s)


def _settled(site: TortureSite) -> Account:
    deadline_s = time.monotonic() + SETTLE_S
    while True:
        try:
            account = site.account()
        except sqlite3.Error:
            if time.monotonic() > deadline_s:
                raise
        else:
            arrived = account.settled and account.on_server == account.recorded and account.exact
            if arrived or time.monotonic() > deadline_s:
                return account
        time.sleep(0.3)


def fresh_directory(place: Path) -> Path:
    """Raises FileExistsError when something lies there: it is not ours to work in."""
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(place.iterdir()):
        raise FileExistsError(f"{place} is not empty")
    return place
