"""The example controller: what it reads from a machine, and a real run of it."""

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from controller_client import Gateway, NotRecorded, teg_controller
from teg.simulator import example_controller
from teg.simulator.example_controller import Account, ExampleController, Machine

ROOT = Path(__file__).resolve().parents[3]

STAT = "cpu  100 20 30 800 50 0 0 0 7 7\ncpu0 100 20 30 800 50 0 0 0 7 7\nintr 5\n"
STAT_LATER = "cpu  130 20 50 830 70 0 0 0 7 7\ncpu0 1 1 1 1 1\n"
MEMINFO = (
    "MemTotal:        8000000 kB\nMemFree:          100000 kB\nMemAvailable:    6000000 kB\nHugePages_Total:    0\n"
)
NET_DEV = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier
    lo:  9999      10    0    0    0     0          0         0     9999      10    0    0    0     0       0          0
  eth0: 1000      10    0    0    0     0          0         0     300      10    0    0    0     0       0          0
 wlan0:2000      10    0    0    0     0          0         0     40      10    0    0    0     0       0          0
"""


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.fixture
def machine_files(tmp_path: Path) -> Path:
    """A `/proc` and a `/sys` of a small board."""
    write(tmp_path / "proc/stat", STAT)
    write(tmp_path / "proc/meminfo", MEMINFO)
    write(tmp_path / "proc/net/dev", NET_DEV)
    write(tmp_path / "proc/uptime", "12345.67 54321.00\n")
    write(tmp_path / "sys/class/thermal/thermal_zone0/temp", "48312\n")
    write(tmp_path / "sys/class/thermal/thermal_zone0/type", "cpu-thermal\n")
    write(tmp_path / "sys/class/hwmon/hwmon0/temp1_input", "41000\n")
    write(tmp_path / "sys/class/hwmon/hwmon0/temp2_input", "-2500\n")
    write(tmp_path / "sys/class/hwmon/hwmon0/name", "nvme\n")
    return tmp_path


class TestReadings:
    def test_of_a_linux_board(self, machine_files: Path) -> None:
        machine = Machine(machine_files / "proc", machine_files / "sys", machine_files)
        write(machine_files / "proc/stat", STAT_LATER)
        values = machine.read()
        assert {key: value for key, value in values.items() if not key.startswith(("load", "disk"))} == {
            "cpu_percent": 50.0,
            "memory_used_percent": 25.0,
            "memory_available_mb": 6000.0,
            "network_received_bytes": 3000,
            "network_sent_bytes": 340,
            "uptime_s": 12345.67,
            "temperature_cpu_thermal_c": 48.312,
            "temperature_nvme_c": 41.0,
            "temperature_nvme_2_c": -2.5,
        }
        assert {key for key in values if key.startswith("load")} == {"load_1m", "load_5m", "load_15m"}
        assert 0 < values["disk_used_percent"] <= 100 and values["disk_free_mb"] > 0

    def test_of_a_machine_that_tells_nothing(self, tmp_path: Path) -> None:
        values = Machine(tmp_path / "proc", tmp_path / "sys", tmp_path / "no").read()
        assert set(values) == {"load_1m", "load_5m", "load_15m"}

    @pytest.mark.parametrize("file", ["stat", "meminfo", "net/dev", "uptime"])
    def test_of_half_written_or_strange_files(self, machine_files: Path, file: str) -> None:
        for text in ("", "\n", "cpu", "MemTotal: kB", "eth0: 1 2 3", "cpu  1 2"):
            write(machine_files / "proc" / file, text if file != "uptime" else text and "1.5")
            values = Machine(machine_files / "proc", machine_files / "sys", machine_files).read()
            assert "load_1m" in values

    def test_a_sensor_that_is_asleep_is_left_out(self, machine_files: Path) -> None:
        write(machine_files / "sys/class/thermal/thermal_zone0/temp", "")
        (machine_files / "sys/class/hwmon/hwmon0/temp1_input").unlink()
        (machine_files / "sys/class/hwmon/hwmon0/temp1_input").mkdir()  # reading it is an OSError
        values = Machine(machine_files / "proc", machine_files / "sys", machine_files).read()
        assert {key: value for key, value in values.items() if "temperature" in key} == {"temperature_nvme_c": -2.5}

    def test_of_this_machine_can_be_sent(self, tmp_path: Path) -> None:
        with Gateway(tmp_path / "q.db") as gateway:
            gateway.send(Machine().read())


class TestAccount:
    def test_counts_points_in_all_and_by_key(self, tmp_path: Path) -> None:
        account = Account(tmp_path / "account.json")
        account.add({"a": 1, "b": 2}, {"a": 3})
        expected = {"recorded": 3, "records": 2, "keys": {"a": 2, "b": 1}}
        assert json.loads((tmp_path / "account.json").read_text()) == expected
        assert [file.name for file in tmp_path.iterdir()] == ["account.json"]

    def test_goes_on_where_an_earlier_life_ended(self, tmp_path: Path) -> None:
        Account(tmp_path / "account.json").add({"a": 1}, {"a": 2, "b": 1})
        again = Account(tmp_path / "account.json")
        again.add({"a": 3})
        assert (again.recorded, again.records, again.keys) == (4, 3, {"a": 3, "b": 1})

    def test_needs_no_file(self) -> None:
        account = Account()
        account.add({"a": 1})
        assert account.recorded == 1


def inbox(path: Path) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(path)) as connection:
        texts = connection.execute("SELECT message FROM messages WHERE type = 'measurement' ORDER BY id")
        return [json.loads(text) for (text,) in texts]


class TestInProcess:
    def test_a_backlog_lies_one_interval_apart_in_the_past(self, tmp_path: Path) -> None:
        account = Account()
        with Gateway(tmp_path / "q.db") as gateway:
            controller = ExampleController(gateway, Machine(), account, interval_s=2.0)
            controller.stop.set()
            controller.run(burst=0)
            assert account.records == 0
            controller.stop.clear()
            controller._record_backlog(1_201)
        stamps = [row["ts"] for row in inbox(tmp_path / "q.db")]
        assert {after - before for before, after in pairwise(stamps)} == {2_000}
        assert account.records == len(stamps) == 1_201
        assert stamps[-1] < time.time_ns() // 1_000_000

    def test_a_reading_that_cannot_be_recorded_is_said_and_not_counted(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        account = Account()
        controller = ExampleController(Gateway(tmp_path / "no" / "q.db", retry_s=0), Machine(), account, 1.0)
        controller._measure()
        assert account.recorded == 0
        assert "this reading is lost" in capsys.readouterr().err

    def test_an_inbox_that_never_opens_is_exit_1(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def refuse(self: ExampleController, burst: int) -> None:
            raise NotRecorded("no inbox")

        monkeypatch.setattr(ExampleController, "run", refuse)
        monkeypatch.setattr(signal, "signal", lambda *_: None)
        assert example_controller.main(["--inbox", str(tmp_path / "q.db")]) == 1
        assert "no inbox" in capsys.readouterr().err

    @pytest.mark.parametrize("interval", ["0", "-1", "nan", "x"])
    def test_an_impossible_interval_is_refused(self, interval: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            example_controller.main(["--interval", interval])
        assert "--interval" in capsys.readouterr().err


@contextmanager
def running(command: list[str], directory: Path, data: Path) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "TEG_CONTROLLER_DATA_PATH": str(data)}
    process = subprocess.Popen(command, cwd=directory, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def recorded(account_file: Path) -> int:
    return int(json.loads(account_file.read_text())["recorded"]) if account_file.exists() else 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_real_run_accounts_for_every_point_and_ends_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    account_file = tmp_path / "account.json"
    options = ["--interval", "0.05", "--burst", "700", "--account-file", str(account_file)]
    command = [sys.executable, "-m", "teg.simulator.example_controller", *options]
    with running(command, ROOT, tmp_path) as process:
        wait_for(lambda: recorded(account_file) > 0 and json.loads(account_file.read_text())["records"] >= 703)
        process.send_signal(number)
        output, _ = process.communicate(timeout=30)
        assert process.returncode == 0
    rows = inbox(tmp_path / "communication_queue.db")
    points = {(key, row["ts"]) for row in rows for key in row["values"]}
    account = json.loads(account_file.read_text())
    assert account["recorded"] == len(points) == sum(account["keys"].values())
    assert account["records"] == len(rows)
    assert re.search(rf"{len(points)} values in {len(rows)} records recorded", output)
    with closing(sqlite3.connect(tmp_path / "communication_queue.db")) as connection:
        assert connection.execute("SELECT id FROM health_check").fetchall() == [(1,)]
        [(log,)] = connection.execute("SELECT message FROM messages WHERE type = 'log'").fetchall()
        assert "example controller" in log


def test_the_two_files_run_side_by_side_without_the_project(tmp_path: Path) -> None:
    for module in (example_controller, teg_controller):
        assert module.__file__
        shutil.copy(module.__file__, tmp_path)
    account_file = tmp_path / "account.json"
    code = "import sys; sys.path[:] = [p for p in sys.path if 'site-packages' not in p]\n"
    code += "import example_controller; sys.exit(example_controller.main(sys.argv[1:]))"
    command = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{code}"]
    with running([*command, "--account-file", str(account_file)], tmp_path, tmp_path) as process:
        wait_for(lambda: recorded(account_file) > 0)
        process.terminate()
        assert process.wait(30) == 0
