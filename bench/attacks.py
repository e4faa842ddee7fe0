"""Ping and memory of a real gateway while it is attacked: every hostile inbox, package archive and mount game there is.

python -m bench.attacks [inboxes] [packages] [mounts] [--seconds 10]

`ping` goes four times a second (calls are limited to five); memory of the gateway and its children is read ten
times a second. Packages and mounts need root and `dockerd`. Promised: `ping` within 250 ms at the median.
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


@dataclass
class Seen:
    pings_ms: list[float] = field(default_factory=list)
    peak_bytes: int = 0


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


def line(name: str, seen: Seen) -> None:
    median, worst = statistics.median(seen.pings_ms), max(seen.pings_ms)
    print(
        f"{name[:52]:52} ping median {median:6.1f} ms, worst {worst:7.1f} ms of {len(seen.pings_ms):3}"
        f"   memory {seen.peak_bytes / MIB:6.1f} MiB",
        flush=True,
    )


def summary(kind: str, base: Seen, all_seen: dict[str, Seen]) -> None:
    medians = {name: statistics.median(seen.pings_ms) for name, seen in all_seen.items()}
    slowest = max(medians, key=lambda name: medians[name])
    worst = max(all_seen, key=lambda name: max(all_seen[name].pings_ms))
    fattest = max(all_seen, key=lambda name: all_seen[name].peak_bytes)
    print(
        f"{kind}: {len(all_seen)} attacks, "
        f"ping without any: median {statistics.median(base.pings_ms):.1f} ms, worst {max(base.pings_ms):.1f} ms; "
        f"all pings: median {statistics.median([ms for seen in all_seen.values() for ms in seen.pings_ms]):.1f} ms; "
        f"slowest median {medians[slowest]:.1f} ms ({slowest}); worst ping {max(all_seen[worst].pings_ms):.1f} ms "
        f"({worst}); memory {base.peak_bytes / MIB:.0f} MiB before, "
        f"at most {all_seen[fattest].peak_bytes / MIB:.0f} MiB ({fattest})\n",
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


def inboxes(seconds: float, only: Sequence[str]) -> None:
    """Each lies there for `seconds`: long enough for a hang to be met (8 s) and for the next try after it."""
    with tempfile.TemporaryDirectory() as name, ThingsBoard(packet_log=0) as server:
        place = Path(name)
        with running_site(place, server) as site, watched(site.gateway) as memory:
            wires = place / "wires"
            wires.mkdir()
            with closing(ControllerInbox(wires / "other.db")) as other:
                other.insert("another program's")
                base = pinged(site.device, memory, seconds)
            for suffix in ("-journal", "-wal", "-shm"):
                (wires / f"other.db{suffix}").write_bytes(b"another program's")
            all_seen = {}
            for kind in only or hostile_inboxes.PLANTS:
                for path in list(site.gateway.controller_path.iterdir()):
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
                hostile_inboxes.plant(kind, site.gateway.controller_path, wires)
                all_seen[kind] = pinged(site.device, memory, seconds)
                line(kind, all_seen[kind])
            summary("inboxes", base, all_seen)
            assert site.gateway.stop() == 0


def packages(seconds: float, engine: Engine) -> None:
    with (
        tempfile.TemporaryDirectory() as name,
        ota_device(Path(name), engine) as device,
        watched(device.gateway) as memory,
    ):
        device.device.wait_subscribed("v1/devices/me/rpc/request/+", timeout_s=60)
        base = pinged(device.device, memory, seconds)
        all_seen = {}
        for number, (kind, made) in enumerate(HOSTILE.items()):
            told = len(device.updates())
            device.device.assign_software("controller", f"p{number}", data=made())
            all_seen[kind] = pinged(
                device.device,
                memory,
                2.0,
                lambda told=told: "FAILED" in device.states(told),  # type: ignore[misc]
            )
            assert "FAILED" in device.states(told), kind
            line(kind, all_seen[kind])
        summary("packages", base, all_seen)


def mounts(seconds: float, engine: Engine) -> None:
    """Each game is a gateway of its own: its settings are the game. A start that is refused as a whole has no ping."""
    with tempfile.TemporaryDirectory() as name, ThingsBoard(packet_log=0) as server:
        place = Path(name)
        write_context(place / "context", "import time\ntime.sleep(600)\n")
        image = save_image(engine, "game:1", place / "context")
        all_seen, base = {}, Seen()
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
                with gateway, watched(gateway) as memory:
                    while gateway.process.poll() is None and not device.connected:  # type: ignore[union-attr]
                        time.sleep(0.1)
                    if gateway.process.poll() is not None:  # type: ignore[union-attr]
                        print(f"{kind[:52]:52} the settings are refused at the start", flush=True)
                        continue
                    device.wait_subscribed("v1/devices/me/rpc/request/+", timeout_s=60)
                    device.assign_software("controller", "g1", data=image)
                    all_seen[kind] = pinged(device, memory, seconds)
                    line(kind, all_seen[kind])
                    base = base if base.pings_ms else all_seen[kind]  # the first game is none
        summary("mounts", base, all_seen)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("what", nargs="*", default=["inboxes", "packages", "mounts"])
    arguments.add_argument("--seconds", type=float, default=10.0)
    arguments.add_argument("--only", nargs="*", default=[], help="names of inboxes")
    given = arguments.parse_args()
    if "inboxes" in given.what:
        inboxes(given.seconds, given.only)
    if "packages" in given.what or "mounts" in given.what:
        with tempfile.TemporaryDirectory(prefix="teg-") as name, own_engine(Path(name)) as engine:
            for what in (packages, mounts):
                if what.__name__ in given.what:
                    what(given.seconds, engine)


if __name__ == "__main__":
    main()
