"""Ping and memory of a real gateway while it is attacked: every hostile inbox, package archive and mount game there is.

python -m bench.attacks [inboxes] [packages] [mounts] [--seconds 10] [--quiet 3] [--core 0]

Each attack stands between two quiet windows of the same gateway, so that what it adds can be told from what the
machine's other work does. `ping` goes four times a second (calls are limited to five); memory of the gateway and its
children is read ten times a second. `--core` holds the gateway and all it starts on one processor, as a small machine
has it. Packages and mounts need root and `dockerd`. Promised: `ping` within 250 ms.
"""

import argparse
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench.rpc import INTERVAL_S
from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support import hostile_inboxes
from tests.support.engine import Engine, own_engine, write_context
from tests.support.mount_games import ALLOWED, REFUSED, game_site
from tests.support.ota_device import ota_device, save_image
from tests.support.running import ControllerInbox, RunningGateway
from tests.support.site import running_site
from tests.unit.adapters.test_image_archive import HOSTILE

MIB = 1 << 20


PROMISED_MS = 250
#: After a start: what is loaded and connected then is no attack's.
WARM_UP_S = 5.0


@dataclass
class Seen:
    pings_ms: list[float] = field(default_factory=list)
    peak_bytes: int = 0

    def __add__(self, other: "Seen") -> "Seen":
        return Seen(self.pings_ms + other.pings_ms, max(self.peak_bytes, other.peak_bytes))

    @property
    def median_ms(self) -> float:
        return statistics.median(self.pings_ms)

    def __str__(self) -> str:
        ordered = sorted(self.pings_ms)
        late = sum(ms > PROMISED_MS for ms in ordered)
        p99 = ordered[max(0, len(ordered) * 99 // 100 - 1)]
        return (
            f"median {self.median_ms:6.1f}, p99 {p99:7.1f}, worst {ordered[-1]:7.1f} ms, "
            f"{late} of {len(ordered)} over {PROMISED_MS}, "
            f"{self.peak_bytes / MIB:.1f} MiB"
        )


@dataclass
class Pair:
    """What was seen in the windows around an attack, and under it."""

    quiet: Seen
    attack: Seen

    @property
    def added_ms(self) -> float:
        return self.attack.median_ms - self.quiet.median_ms


class Memory:
    """Resident memory of a process and of what it started, the highest of what was seen since `restart`."""

    def __init__(self, gateway: RunningGateway) -> None:
        self._gateway = gateway
        self._over = threading.Event()
        self.peak_bytes = 0
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            if (process := self._gateway.process) is not None:
                self.peak_bytes = max(self.peak_bytes, sum(map(_resident, family(process.pid))))

    def restart(self) -> None:
        self.peak_bytes = 0

    def stop(self) -> None:
        self._over.set()
        self._thread.join()


def family(pid: int) -> list[int]:
    found = [pid]
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                found += family(int(child))
    return found


def _resident(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    return 0


def pinged(device: Device, memory: Memory, seconds: float, over: Callable[[], object] = lambda: True) -> Seen:
    """For `seconds`, and then until `over`."""
    memory.restart()
    seen, began_s = Seen(), time.monotonic()
    while time.monotonic() < began_s + seconds or not (over() or time.monotonic() > began_s + 90):
        asked_s = time.perf_counter()
        outcome = device.rpc("ping", timeout_s=30)
        assert outcome.response == {"message": "Pong"}, outcome
        seen.pings_ms.append((time.perf_counter() - asked_s) * 1000)
        time.sleep(INTERVAL_S)
    seen.peak_bytes = memory.peak_bytes
    return seen


def line(name: str, pair: Pair) -> None:
    print(f"{name[:46]:46} {pair.attack} | quiet: {pair.quiet} | adds {pair.added_ms:+.1f} ms", flush=True)


def summary(kind: str, pairs: dict[str, Pair]) -> None:
    quiet, attack = (sum(seen, Seen()) for seen in zip(*((p.quiet, p.attack) for p in pairs.values()), strict=True))
    added = {name: pair.added_ms for name, pair in pairs.items()}
    slowest = max(added, key=lambda name: added[name])
    fattest = max(pairs, key=lambda name: pairs[name].attack.peak_bytes - pairs[name].quiet.peak_bytes)
    print(
        f"{kind}: {len(pairs)} attacks\n  quiet:    {quiet}\n  attacked: {attack}\n"
        f"  an attack adds {statistics.median(added.values()):+.1f} ms to the median ping, at most "
        f"{added[slowest]:+.1f} ms ({slowest}); to memory at most "
        f"{(pairs[fattest].attack.peak_bytes - pairs[fattest].quiet.peak_bytes) / MIB:+.1f} MiB ({fattest})\n",
        flush=True,
    )


@contextmanager
def watched(gateway: RunningGateway) -> Iterator[Memory]:
    memory = Memory(gateway)
    try:
        yield memory
    finally:
        memory.stop()


# --- what is attacked with ------------------------------------------------------------------------------------------


def inboxes(seconds: float, quiet_s: float, only: Sequence[str], prefix: list[str]) -> None:
    """Each lies there for `seconds`: long enough for a hang to be met (8 s) and for the next try after it."""
    with tempfile.TemporaryDirectory() as name, ThingsBoard(packet_log=0) as server:
        place = Path(name)
        with running_site(place, server) as site, watched(site.gateway) as memory:
            hold(site.gateway, prefix)
            wires = place / "wires"
            wires.mkdir()
            with closing(ControllerInbox(wires / "other.db")) as other:
                other.insert("another program's")
            for suffix in ("-journal", "-wal", "-shm"):
                (wires / f"other.db{suffix}").write_bytes(b"another program's")
            pairs = {}
            pinged(site.device, memory, WARM_UP_S)
            for kind in only or hostile_inboxes.PLANTS:
                quiet = pinged(site.device, memory, quiet_s)
                planted(kind, place / "made", site.gateway.controller_path, wires)
                attack = pinged(site.device, memory, seconds)
                emptied(site.gateway.controller_path)
                pairs[kind] = Pair(quiet + pinged(site.device, memory, quiet_s), attack)
                line(kind, pairs[kind])
            summary("inboxes", pairs)
            assert site.gateway.stop() == 0


def hold(gateway: RunningGateway, prefix: list[str]) -> None:
    """Started anew on the processor that `prefix` names."""
    if prefix:
        gateway.stop()
        gateway.prefix = prefix
        gateway.start()


def planted(kind: str, made: Path, place: Path, wires: Path) -> None:
    """Made elsewhere, and moved there as a whole, the database last: while it is made, the gateway would hold it."""
    made.mkdir()
    hostile_inboxes.plant(kind, made, wires)
    for path in sorted(made.iterdir(), key=lambda path: path.name == hostile_inboxes.NAME):
        path.rename(place / path.name)
    made.rmdir()


def emptied(place: Path) -> None:
    for path in place.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def packages(seconds: float, quiet_s: float, engine: Engine, prefix: list[str]) -> None:
    with (
        tempfile.TemporaryDirectory() as name,
        ota_device(Path(name), engine) as device,
        watched(device.gateway) as memory,
    ):
        hold(device.gateway, prefix)
        device.device.wait_subscribed("v1/devices/me/rpc/request/+", timeout_s=60)
        pinged(device.device, memory, WARM_UP_S)
        pairs = {}
        for number, (kind, made) in enumerate(HOSTILE.items()):
            quiet = pinged(device.device, memory, quiet_s)
            told = len(device.updates())
            device.device.assign_software("controller", f"p{number}", data=made())
            attack = pinged(
                device.device,
                memory,
                2.0,
                lambda told=told: "FAILED" in device.states(told),  # type: ignore[misc]
            )
            assert "FAILED" in device.states(told), kind
            pairs[kind] = Pair(quiet + pinged(device.device, memory, quiet_s), attack)
            line(kind, pairs[kind])
        summary("packages", pairs)


def mounts(seconds: float, quiet_s: float, engine: Engine, prefix: list[str]) -> None:
    """Each game is a gateway of its own: its settings are the game. A start that is refused as a whole has no ping."""
    with tempfile.TemporaryDirectory() as name, ThingsBoard(packet_log=0) as server:
        place = Path(name)
        write_context(place / "context", "import time\ntime.sleep(600)\n")
        image = save_image(engine, "game:1", place / "context")
        pairs = {}
        for number, (kind, play) in enumerate([*ALLOWED.items(), *((k, v[0]) for k, v in REFUSED.items())]):
            with game_site(place / f"game-{number}") as site:
                device = server.add_device(f"game-{number}", token=f"G{number}")
                play(site)
                profile = site.profile()
                environment = {
                    "TEG_CONTROLLER_RUNTIME": "docker",
                    "DOCKER_HOST": engine.host,
                    "TEG_CONTROLLER_DATA_PATH": str(profile.data_path),
                    "TEG_CONTROLLER_LOGS_PATH": str(profile.logs_path),
                    "TEG_CONTROLLER_MOUNTS": ",".join(f"{mount.source}:{mount.target}" for mount in profile.mounts),
                }
                gateway = RunningGateway(
                    place / f"gateway-{number}", server.host, server.port, f"G{number}", **environment
                )
                gateway.prefix = prefix
                with gateway, watched(gateway) as memory:
                    while gateway.process.poll() is None and not device.connected:  # type: ignore[union-attr]
                        time.sleep(0.1)
                    if gateway.process.poll() is not None:  # type: ignore[union-attr]
                        print(f"{kind[:52]:52} the settings are refused at the start", flush=True)
                        continue
                    device.wait_subscribed("v1/devices/me/rpc/request/+", timeout_s=60)
                    pinged(device, memory, WARM_UP_S)
                    quiet = pinged(device, memory, quiet_s)
                    device.assign_software("controller", "g1", data=image)
                    attack = pinged(device, memory, seconds)
                    pairs[kind] = Pair(quiet + pinged(device, memory, quiet_s), attack)
                    line(kind, pairs[kind])
        summary("mounts", pairs)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("what", nargs="*", default=["inboxes", "packages", "mounts"])
    arguments.add_argument("--seconds", type=float, default=10.0)
    arguments.add_argument("--quiet", type=float, default=3.0, help="seconds of each window before and after")
    arguments.add_argument("--core", help="the one processor that the gateway may use")
    arguments.add_argument("--only", nargs="*", default=[], help="names of inboxes")
    given = arguments.parse_args()
    prefix = ["taskset", "-c", given.core] if given.core else []
    if "inboxes" in given.what:
        inboxes(given.seconds, given.quiet, given.only, prefix)
    if "packages" in given.what or "mounts" in given.what:
        with tempfile.TemporaryDirectory(prefix="teg-") as name, own_engine(Path(name)) as engine:
            for what in (packages, mounts):
                if what.__name__ in given.what:
                    what(given.seconds, given.quiet, engine, prefix)


if __name__ == "__main__":
    main()
