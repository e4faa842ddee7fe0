"""An example controller: the machine it runs on is the instrument, its real readings are the measurements.

    python -m teg.simulator.example_controller --interval 1

It needs Python 3.10 and `teg_controller.py` only: the two files can be copied side by side.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

try:
    from controller_client import Gateway, NotRecorded
except ImportError:  # copied beside teg_controller.py
    from teg_controller import Gateway, NotRecorded  # type: ignore[import-not-found,no-redef]

BURST_CHUNK = 500

Readings = dict[str, float]


class Machine:
    """What this machine tells about itself; whatever it does not have is left out.

    `proc` and `sys` are the places where Linux tells it.
    """

    def __init__(self, proc: Path = Path("/proc"), sys: Path = Path("/sys"), disk: Path = Path("/")) -> None:
        self._proc = proc
        self._sys = sys
        self._disk = disk
        self._cpu = parse_cpu(_text(proc / "stat"))

    def read(self) -> Readings:
        """One set of readings: key to value, the unit in the key."""
        return {
            **load_averages(),
            **self._cpu_percent(),
            **parse_memory(_text(self._proc / "meminfo")),
            **disk_usage(self._disk),
            **parse_network(_text(self._proc / "net/dev")),
            **parse_uptime(_text(self._proc / "uptime")),
            **temperatures(self._sys),
        }

    def _cpu_percent(self) -> Readings:
        """Share of the time since the last call in which the processors were busy."""
        before, self._cpu = self._cpu, parse_cpu(_text(self._proc / "stat"))
        total = self._cpu[1] - before[1]
        busy = self._cpu[0] - before[0]
        return {"cpu_percent": round(100 * busy / total, 1)} if total > 0 else {}


def load_averages() -> Readings:
    return {f"load_{minutes}m": round(load, 2) for minutes, load in zip((1, 5, 15), os.getloadavg(), strict=True)}


def disk_usage(path: Path) -> Readings:
    try:
        usage = shutil.disk_usage(path)
    except OSError:
        return {}
    return {
        "disk_used_percent": round(100 * usage.used / usage.total, 2),
        "disk_free_mb": round(usage.free / 1e6, 1),
    }


def parse_cpu(stat: str) -> tuple[int, int]:
    """(busy, total) ticks since boot, of all processors together; zeros when `stat` does not say."""
    fields = re.match(r"cpu +([\d ]+)", stat)
    ticks = [int(field) for field in fields[1].split()[:8]] if fields else []
    return sum(ticks) - sum(ticks[3:5]), sum(ticks)


def parse_memory(meminfo: str) -> Readings:
    kb = {key: int(value) for key, value in re.findall(r"^(\w+): +(\d+) kB", meminfo, re.MULTILINE)}
    if not kb.get("MemTotal") or "MemAvailable" not in kb:
        return {}
    return {
        "memory_used_percent": round(100 * (1 - kb["MemAvailable"] / kb["MemTotal"]), 2),
        "memory_available_mb": round(kb["MemAvailable"] / 1e3, 1),
    }


def parse_network(dev: str) -> Readings:
    """Bytes since boot over all interfaces but the loopback."""
    lines = re.findall(r"^ *(\S+): *(\d+)(?: +\d+){7} +(\d+)", dev, re.MULTILINE)
    totals = [(int(received), int(sent)) for name, received, sent in lines if name != "lo"]
    if not totals:
        return {}
    return {
        "network_received_bytes": sum(received for received, _ in totals),
        "network_sent_bytes": sum(sent for _, sent in totals),
    }


def parse_uptime(uptime: str) -> Readings:
    return {"uptime_s": float(uptime.split()[0])} if uptime else {}


def temperatures(sys: Path) -> Readings:
    """Every sensor in degrees Celsius; a second one of the same name gets a number."""
    found: Readings = {}
    for file, name in _sensors(sys):
        reading = _text(file)
        if re.fullmatch(r"-?\d+", reading):
            found[_free_name(f"temperature_{name}_c", found)] = int(reading) / 1000
    return found


def _sensors(sys: Path) -> list[tuple[Path, str]]:
    """(file, name) of the thermal zones and of the hardware monitors."""
    zones = [(zone / "temp", _text(zone / "type")) for zone in sorted(sys.glob("class/thermal/thermal_zone*"))]
    chips = [(file, _text(file.parent / "name")) for file in sorted(sys.glob("class/hwmon/hwmon*/temp*_input"))]
    return [(file, re.sub(r"\W+", "_", name.lower()) or "sensor") for file, name in zones + chips]


def _free_name(name: str, taken: Mapping[str, float]) -> str:
    number = 1
    while name in taken:
        number += 1
        name = re.sub(r"(_\d+)?_c$", f"_{number}_c", name)
    return name


def _text(file: Path) -> str:
    """The contents without white space around them, empty when there is no such file (or the sensor is asleep)."""
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""


class Account:
    """How many measured values were recorded, in all and per key; each is one (key, ts) on the server.

    Log lines are not in it: the gateway sends log lines of its own under the same keys.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        before = self._saved()
        self.records = int(before.get("records", 0))
        self.keys: Counter[str] = Counter(before.get("keys", {}))

    def _saved(self) -> Mapping[str, Any]:
        """What an earlier life of this controller has counted."""
        try:
            saved: Mapping[str, Any] = json.loads(self._file.read_text()) if self._file is not None else {}
        except FileNotFoundError:
            return {}
        return saved

    @property
    def recorded(self) -> int:
        return sum(self.keys.values())

    def add(self, *records: Readings) -> None:
        self.records += len(records)
        for values in records:
            self.keys.update(values.keys())
        self.save()

    def save(self) -> None:
        """Whoever reads the file meanwhile sees the old account or the new one, never half of it."""
        if self._file is None:
            return
        text = json.dumps({"recorded": self.recorded, "records": self.records, "keys": self.keys})
        new = self._file.with_name(f"{self._file.name}.new")
        new.write_text(text)
        new.replace(self._file)


class ExampleController:
    """Measures, records, says that it is alive; `stop` ends `run` after the write it is in."""

    def __init__(self, gateway: Gateway, machine: Machine, account: Account, interval_s: float) -> None:
        self._gateway = gateway
        self._machine = machine
        self._account = account
        self._interval_s = interval_s
        self.stop = threading.Event()

    def run(self, burst: int = 0) -> None:
        self._gateway.send_log("INFO", f"example controller: a reading every {self._interval_s:g} s")
        self._account.save()
        self._record_backlog(burst)
        due_s = time.monotonic()
        while not self.stop.wait(max(0.0, due_s - time.monotonic())):
            self._measure()
            # Late by more than a whole interval (a long lock)? Then go on from now instead of catching up.
            due_s = max(due_s + self._interval_s, time.monotonic())

    def _measure(self) -> None:
        values = self._machine.read()
        try:
            self._gateway.send(values)
            self._account.add(values)
            self._gateway.heartbeat()
        except NotRecorded as error:
            print(f"example controller: this reading is lost: {error}", file=sys.stderr, flush=True)

    def _record_backlog(self, count: int) -> None:
        """`count` records as if they had been measured one interval apart until now."""
        now_ms = time.time_ns() // 1_000_000
        step_ms = max(1, int(self._interval_s * 1000))
        for start in range(count, 0, -BURST_CHUNK):
            if self.stop.is_set():
                return
            stamps = [now_ms - age * step_ms for age in range(start, max(0, start - BURST_CHUNK), -1)]
            records = [self._machine.read()] * len(stamps)
            self._gateway.send_many(records, stamps)
            self._account.add(*records)


def main(arguments: list[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT: 0 after having finished the write it was in, 1 when the inbox never opened."""
    options = _options(arguments)
    account = Account(options.account_file)
    with Gateway(options.inbox) as gateway:
        machine = Machine(disk=gateway.path.parent)
        controller = ExampleController(gateway, machine, account, options.interval)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: controller.stop.set())
        print(f"example controller: into {gateway.path}", flush=True)
        try:
            controller.run(options.burst)
        except NotRecorded as error:
            print(f"example controller: {error}", file=sys.stderr)
            return 1
    print(f"example controller: {account.recorded} values in {account.records} records recorded", flush=True)
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="example_controller", description="Sends readings of this machine.")
    parser.add_argument("--interval", type=_seconds, default=1.0, help="seconds between readings (1.0)")
    parser.add_argument("--burst", type=int, default=0, metavar="N", help="first record a backlog of N records")
    parser.add_argument("--account-file", type=Path, help="keep the number of recorded values here, as JSON")
    parser.add_argument("--inbox", type=Path, help="default: $TEG_CONTROLLER_DATA_PATH/communication_queue.db")
    return parser.parse_args(arguments)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0.001 <= seconds < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not between 0.001 and 1e6 seconds")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
