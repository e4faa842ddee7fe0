"""What can be done to the gateway with a key, what is said about it, and when it has been survived."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from teg.simulator.demo.account import Snapshot
from teg.simulator.demo.versions import BAD, GOOD, has_git
from teg.simulator.demo.world import World

#: How long a full disk stays full.
DISK_FULL_S = 4.0
#: Values of two readings: so much is always on the way.
_IN_FLIGHT = 30


@dataclass(frozen=True, slots=True)
class Blow:
    """`name` is what the account counts; None: it counts by itself, or is no blow."""

    key: str
    legend: str
    name: str | None
    strike: Callable[["Blows"], str]


class Missed(Exception):  # noqa: N818
    """There is nothing to strike just now; the text says why."""


@dataclass(slots=True)
class Wound:
    """A blow that is not survived yet: the values recorded before it have to arrive, and newer ones."""

    key: str
    struck_s: float
    recorded: int


class Blows:
    """Strikes on the world; `say` gets one line for each and one when it has been survived."""

    def __init__(self, world: World, say: Callable[[str], object]) -> None:
        self.world = world
        self.say = say
        self.struck: Counter[str] = Counter()
        self._wounds: list[Wound] = []
        self._told = 0
        self._disk_free_s: float | None = None
        self._update: str | None = None

    @property
    def survived(self) -> bool:
        """Nothing that was struck is still being dealt with."""
        return not self._wounds

    def strike(self, key: str, now: Snapshot) -> None:
        blow = BLOWS.get(key)
        if blow is None:
            return
        try:
            self.say(f"» {key}: {blow.strike(self)}")
        except Missed as why:
            self.say(f"» {key}: {why}")
            return
        if blow.name is not None:
            self.struck[blow.name] += 1
        self._wounds.append(Wound(key, now.elapsed_s, now.recorded.total))

    def tend(self, now: Snapshot) -> None:
        """What was for a while only comes to its end; what has been survived is said."""
        if self._disk_free_s is not None and time.monotonic() >= self._disk_free_s:
            self.end_full_disk()
        healed = [wound for wound in self._wounds if self._is_healed(wound, now)]
        for wound in healed:
            self._wounds.remove(wound)
            self.say(f"✓ {wound.key}: survived, {now.elapsed_s - wound.struck_s:.1f} s after the blow")

    def _is_healed(self, wound: Wound, now: Snapshot) -> bool:
        """Everything recorded before the blow has arrived, newer values have, and next to nothing waits."""
        if not self.world.network or self._disk_free_s is not None or not self.world.gateway.running:
            return False
        if wound.key in "gb" and not self._update_is_over(now):
            return False
        delivered = now.delivered > wound.recorded and now.missing <= _IN_FLIGHT
        return delivered and now.arrived.connected

    def _update_is_over(self, now: Snapshot) -> bool:
        told = now.arrived.latest
        if self._update == BAD:
            return bool(told.get("sw_state") == "FAILED")
        return bool(told.get("sw_state") == "UPDATED" and told.get("current_sw_version") == self._update)

    def end_full_disk(self) -> None:
        if self._disk_free_s is None:
            return
        self._disk_free_s = None
        self.world.refuse_writes(False)
        self.say("» the disk has space again")

    def end(self) -> None:
        """Before the account: what is off comes on again."""
        self.end_full_disk()
        if not self.world.network:
            self.say(f"» n: {self.network()}")

    def account(self, lost: int) -> str:
        """What was struck; it was survived if nothing is lost."""
        if not self.struck:
            return "survived: no blows (press keys, or set DEMO_SECONDS=30)"
        verb = "survived" if lost == 0 else f"struck, with {lost} values lost"
        kinds = ", ".join(f"{name} x {count}" for name, count in sorted(self.struck.items()))
        return f"{verb}: {_many(self.struck.total(), 'blow')} of {_many(len(self.struck), 'kind')}: {kinds}"

    # --- one each ------------------------------------------------------------------------------------------

    def network(self) -> str:
        self.world.switch_network(not self.world.network)
        if self.world.network:
            return "the network is back"
        self.struck["outage"] += 1
        return "the network is gone: records wait in the archive"

    def kill_gateway(self) -> str:
        if not self.world.kill_gateway():
            raise Missed("the gateway is down already")
        self._disk_free_s = None
        return "kill -9 of the gateway; a second later it is started again, as systemd would"

    def power_cut(self) -> str:
        self._disk_free_s = None
        gone = self.world.cut_power()
        return f"gateway and controller killed at once; what was not flushed to disk is gone ({gone:,} bytes)"

    def fill_disk(self) -> str:
        if not self.world.refuse_writes(True):
            raise Missed("the gateway is down")
        self._disk_free_s = time.monotonic() + DISK_FULL_S
        return f"every write of the gateway to disk fails for {DISK_FULL_S:g} s"

    def crash_controller(self) -> str:
        if not self.world.kill_controller():
            raise Missed("no controller runs just now")
        return "the controller was killed"

    def corrupt_page(self) -> str:
        pages = self.world.gateway_db_pages()
        if pages < 3:
            raise Missed("gateway.db is new: everything in it is still in its write-ahead log")
        page = random.randrange(2, pages)
        self.world.corrupt_page(page)
        return f"page {page + 1} of {pages} of gateway.db was overwritten"

    def update(self, version: str) -> str:
        if not has_git():
            raise Missed("updates of the demo need git, which is not installed")
        self._update = version
        self.world.device.assign_software("demo-controller", version)
        kind = "works" if version == GOOD else "crashes at its start"
        return f"version {version}, which {kind}, is assigned on the server"

    def change_file(self) -> str:
        self._told += 1
        text = f"changed {self._told} times"
        definition = {"note": {"path": "$DATA_PATH/note.txt"}}
        self.world.device.set_shared({"FILES": definition, "FILE_CONTENT_note": text})
        return f"the server wants note.txt to say {text!r}"

    def call(self) -> str:
        threading.Thread(target=self._call, name="demo-call", daemon=True).start()
        return "the server calls ping"

    def _call(self) -> None:
        begun_s = time.monotonic()
        outcome = self.world.device.rpc("ping")
        took_ms = (time.monotonic() - begun_s) * 1000
        answer = f"{outcome.response}" if outcome.status == 200 else f"no answer (HTTP {outcome.status})"
        self.say(f"  the call was answered after {took_ms:.0f} ms: {answer}")


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


BLOWS = {
    blow.key: blow
    for blow in (
        Blow("n", "network off/on", None, Blows.network),
        Blow("k", "kill -9 the gateway", "kill of the gateway", Blows.kill_gateway),
        Blow("p", "power cut", "power cut", Blows.power_cut),
        Blow("d", "full disk", "full disk", Blows.fill_disk),
        Blow("x", "corrupt a page", "corrupted page", Blows.corrupt_page),
        Blow("c", "crash the controller", "crash of the controller", Blows.crash_controller),
        Blow("g", "good update", "good update", lambda blows: blows.update(GOOD)),
        Blow("b", "bad update", "bad update", lambda blows: blows.update(BAD)),
        Blow("f", "change a file", None, Blows.change_file),
        Blow("r", "a call", None, Blows.call),
    )
}
LEGEND = " · ".join(f"{blow.key} {blow.legend}" for blow in BLOWS.values()) + " · q account and end"
