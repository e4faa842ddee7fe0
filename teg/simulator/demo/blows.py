"""What can be done to the gateway with a key, and what is said about it."""

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from teg.simulator.demo.versions import BAD, GOOD, has_git
from teg.simulator.demo.world import World

#: How long a full disk stays full.
DISK_FULL_S = 5.0
PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Blow:
    """`name` is what the account counts; None: it counts by itself, or is no blow."""

    key: str
    legend: str
    name: str | None
    strike: Callable[["Blows"], str]


class Blows:
    """Strikes on the world; `say` gets one line for each, `survived` counts them."""

    def __init__(self, world: World, say: Callable[[str], object]) -> None:
        self.world = world
        self.say = say
        self.survived: Counter[str] = Counter()
        self._told = 0
        self._disk_free_s: float | None = None

    def strike(self, key: str) -> None:
        blow = BLOWS.get(key)
        if blow is None:
            return
        if blow.name is not None:
            self.survived[blow.name] += 1
        self.say(f"» {key}: {blow.strike(self)}")

    def tend(self) -> None:
        """What was for a while only comes to its end."""
        if self._disk_free_s is not None and time.monotonic() >= self._disk_free_s:
            self.end_full_disk()

    def end_full_disk(self) -> None:
        if self._disk_free_s is None:
            return
        self._disk_free_s = None
        if self.world.gateway.running:
            self.world.gateway.refuse_writes(False)
            self.say("» the disk has space again")

    def end(self) -> None:
        """Before the account: what is off comes on again."""
        self.end_full_disk()
        if not self.world.network:
            self.say(f"» n: {self.network()}")

    def account(self) -> str:
        if not self.survived:
            return "survived: no blows (press keys, or set DEMO_SECONDS=30)"
        return "survived: " + ", ".join(f"{name} x {count}" for name, count in sorted(self.survived.items()))

    # --- one each ------------------------------------------------------------------------------------------

    def network(self) -> str:
        self.world.switch_network(not self.world.network)
        self.survived["outage"] += not self.world.network
        return "the network is back" if self.world.network else "the network is gone: records wait in the archive"

    def kill_gateway(self) -> str:
        if not self.world.gateway.running:
            return "the gateway is down already"
        self._disk_free_s = None
        self.world.kill_gateway()
        return "kill -9 of the gateway; a second later it is started again, as systemd would"

    def power_cut(self) -> str:
        """Of a machine we can only kill processes: what the kernel holds unsynced survives, unlike in a power cut."""
        self.world.kill_controller()
        self.kill_gateway()
        return "gateway and controller killed at once, in the middle of whatever they did"

    def fill_disk(self) -> str:
        if not self.world.gateway.running:
            return "the gateway is down"
        self.world.gateway.refuse_writes(True)
        self._disk_free_s = time.monotonic() + DISK_FULL_S
        return f"every write of the gateway to disk fails for {DISK_FULL_S:g} s"

    def crash_controller(self) -> str:
        return "the controller was killed" if self.world.kill_controller() else "no controller runs just now"

    def corrupt_page(self) -> str:
        path = self.world.places.gateway_db
        pages = path.stat().st_size // PAGE_BYTES if path.exists() else 0
        if pages < 3:
            return "gateway.db has no pages yet"
        page = random.randrange(2, pages)
        with path.open("r+b") as file:
            os.pwrite(file.fileno(), b"\xa5" * PAGE_BYTES, page * PAGE_BYTES)
        return f"page {page + 1} of {pages} of gateway.db was overwritten"

    def update(self, version: str) -> str:
        if not has_git():
            return "updates of the demo need git, which is not installed"
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


BLOWS = {
    blow.key: blow
    for blow in (
        Blow("n", "network off/on", None, Blows.network),
        Blow("k", "kill -9 the gateway", "kill of the gateway", Blows.kill_gateway),
        Blow("p", "kill everything at once", "kill of everything", Blows.power_cut),
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
