"""A real `huey_consumer` process: how it starts, refuses to start, survives its queue's troubles, and stops."""

import ast
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import orjson
import pytest

from tasks.lanes import Lane
from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support import queue_libraries
from tests.support.running import (
    CLOSED_PORT,
    CONSUMER,
    PROJECT,
    ControllerInbox,
    RunningGateway,
    message,
    remove_tree,
    wait_until,
)

PONG = {"message": "Pong"}
ODD = "tests.support.odd_gateway"


class Bomb:
    """Unpickling this creates a directory."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.canary),))


class Site:
    """A gateway, its controller's inbox and its server."""

    def __init__(self, directory: Path, server: ThingsBoard) -> None:
        self.server = server
        self.device: Device = server.add_device("pi", token="TOKEN-1")
        self.gateway = RunningGateway(directory, server.host, server.port, "TOKEN-1")
        self.inbox = ControllerInbox(self.gateway.inbox_path)
        self.queue_path = self.gateway.data_path / "huey_data" / "huey.db"
        self.sent = 0

    def arrives(self, count: int = 1, timeout_s: float = 30.0) -> None:
        """`count` new measurements get through, each once."""
        for _ in range(count):
            self.sent += 1
            self.inbox.insert(message(self.sent))
        expected = set(range(1, self.sent + 1))
        wait_until(lambda: self.numbers() == expected, timeout_s, f"measurements 1 to {self.sent} on the server")

    def numbers(self) -> set[int]:
        return {values["n"] for _, values in self.device.records() if "n" in values}

    def insert_task(self, name: str, *args: Any, lane: Lane = Lane.WORK) -> None:
        fields = {"id": "by-hand", "name": name, "args": args, "kwargs": {}}
        self.insert_row(orjson.dumps({**fields, "retries": 0, "retry_delay": 0, "retry_backoff": 0}), lane)

    def insert_row(self, data: Any, lane: Lane = Lane.WORK) -> None:
        with closing(sqlite3.connect(self.queue_path, isolation_level=None, timeout=10)) as connection:
            connection.execute("insert into task (queue, data, priority) values (?, ?, 0)", (f"teg-{lane}", data))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with ThingsBoard() as server:
        site = Site(tmp_path, server)
        with_log = site.gateway
        try:
            yield site
        finally:
            with_log.kill()
            site.inbox.close()
            print(with_log.log()[-6000:])


def started(site: Site, *arguments: str, target: str = "gateway") -> Site:
    site.gateway.start(*arguments, target=f"{target}.huey")
    site.arrives()
    return site


# --- starting ----------------------------------------------------------------------------------------------


def test_a_bare_start_is_a_production_start(site: Site) -> None:
    started(site)
    site.arrives(3)
    assert site.device.rpc("ping").response == PONG
    assert site.queue_path.exists()
    assert site.gateway.stop() == 0


def test_it_starts_from_anywhere(site: Site, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    process = subprocess.Popen([CONSUMER, "gateway.huey"], cwd=elsewhere, env=site.gateway.environment)
    try:
        site.arrives()
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
    assert list(elsewhere.iterdir()) == []


def test_options_cannot_make_it_wrong(site: Site) -> None:
    """One worker, no health check, no periodic tasks: a site that copied such a line still works."""
    started(site, "-w", "1", "-C", "-n", "-d", "5", "-m", "60")
    assert site.device.rpc("ping").response == PONG
    assert site.gateway.stop() == 0


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(CONSUMER), *arguments]
    return subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=60)


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def test_a_second_consumer_on_the_same_data_is_refused(site: Site) -> None:
    started(site)
    second = run(site.gateway.environment, "gateway.huey")
    assert second.returncode == 1
    [line] = lines(second.stderr)
    assert "another gateway already works on" in line
    assert str(site.gateway.data_path) in line
    site.arrives(3)
    assert site.gateway.stop() == 0
    started(site)


def test_wrong_settings_are_all_named_in_one_message(site: Site) -> None:
    wrong = {"TB_HOST": "", "TB_PORT": "mqtt", "TB_TLS": "perhaps", "TEG_QUEUE_URL": "mysql://h"}
    done = run({**site.gateway.environment, **wrong}, "gateway.huey")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for name in wrong:
        assert done.stderr.count(name) == 1, name
    assert not (site.gateway.data_path / "gateway.db").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-k", "process", "gateway.huey"), "only thread workers"),
        (("-k", "greenlet", "gateway.huey"), "only thread workers"),
        (("tasks.queue.huey",), "huey_consumer gateway.huey"),
    ],
)
def test_a_wrong_command_line_is_refused_in_one_line(site: Site, arguments: tuple[str, ...], said: str) -> None:
    done = run(site.gateway.environment, *arguments)
    assert done.returncode == 1
    [line] = lines(done.stderr)
    assert said in line


def test_a_queue_url_that_can_never_work_is_wrong_configuration(site: Site) -> None:
    done = run({**site.gateway.environment, "TEG_QUEUE_URL": "redis://u:secret@127.0.0.1:none/0"}, "gateway.huey")
    assert done.returncode == 1
    assert "TEG_QUEUE_URL" in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_newer_database_is_left_alone(site: Site) -> None:
    with closing(sqlite3.connect(site.gateway.data_path / "gateway.db")) as connection:
        connection.execute("PRAGMA user_version=9999")
    done = run(site.gateway.environment, "gateway.huey")
    assert done.returncode == 1
    assert "schema 9999" in done.stderr
    assert "Traceback" not in done.stderr


# --- the queue's troubles ----------------------------------------------------------------------------------


def test_a_queue_removed_while_running_loses_nothing(site: Site) -> None:
    started(site)
    for _ in range(3):
        remove_tree(site.queue_path.parent)
        site.arrives(5)
        wait_until(site.queue_path.exists, 20, "a new queue file")
    assert site.device.rpc("ping").response == PONG
    assert site.gateway.stop() == 0


def test_a_queue_removed_between_two_runs_loses_nothing(site: Site) -> None:
    started(site)
    site.gateway.kill()
    for part in site.queue_path.parent.iterdir():
        part.unlink()
    site.queue_path.parent.rmdir()
    site.inbox.insert_many([message(number) for number in range(2, 502)])
    site.sent = 501
    started(site)


def test_a_damaged_queue_is_moved_aside_at_the_start(site: Site) -> None:
    site.queue_path.parent.mkdir(parents=True)
    site.queue_path.write_bytes(b"lost+found" * 1000)
    started(site)
    assert [path for path in site.queue_path.parent.iterdir() if "damaged" in path.name]
    assert "kept as" in site.gateway.log()


def test_a_queue_damaged_while_running_is_replaced(site: Site) -> None:
    """An SD card that forgets: the next thing that reads the file finds rubbish."""
    started(site)
    deadline_s = time.monotonic() + 60
    while "kept as" not in site.gateway.log():
        assert time.monotonic() < deadline_s, "the damage is found and moved aside"
        damage(site.queue_path)
        time.sleep(1.0)
    site.arrives(3, timeout_s=60)
    wait_until(lambda: site.device.rpc("ping").response == PONG, 30, "calls are answered again")
    site.arrives(3, timeout_s=60)
    assert site.gateway.stop() == 0


def damage(queue: Path) -> None:
    """Overwrite everything, just after another process has written: so nobody can go on from what he has in memory."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(queue, timeout=5)) as other:
        other.execute("INSERT OR REPLACE INTO kv (queue, key, value) VALUES ('other', 'k', x'00')")
        other.commit()
        with queue.open("r+b") as file:
            file.write(b"X" * queue.stat().st_size)
        with queue.with_name("huey.db-wal").open("r+b") as file:
            file.truncate(0)


def test_a_queue_held_by_another_process_is_waited_for(site: Site) -> None:
    started(site)
    with closing(sqlite3.connect(site.queue_path, isolation_level=None)) as holder:
        holder.execute("begin exclusive")
        site.inbox.insert_many([message(number) for number in range(site.sent + 1, site.sent + 101)])
        site.sent += 100
        site.gateway.wait_log("trying again until it is back")
        holder.execute("rollback")
    site.arrives()
    assert site.gateway.log().count("trying again until it is back") == 1
    assert "Traceback" not in site.gateway.log()
    assert site.gateway.stop() == 0


def test_poison_in_the_queue_runs_nothing_and_stops_nothing(site: Site, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    started(site)

    rows = [b"", b"\xff\x00garbage", pickle.dumps(Bomb(canary)), b'{"id": "x"', b" " * (2 << 20), "text", 5]
    for lane in Lane:
        for row in rows:
            site.insert_row(row, lane)
        site.insert_task("tasks.gone.by_now", lane=lane)
        site.insert_task("tasks.telemetry.archive_records", "an", "argument", "too", "many", lane=lane)
    site.arrives(3)
    assert site.device.rpc("ping").response == PONG
    wait_until(lambda: site.gateway.log().count("dropped an unreadable task") == 8 * len(Lane), 20, "each was said")
    assert not canary.exists()
    assert site.gateway.stop() == 0


def test_a_worker_that_left_is_back(site: Site) -> None:
    """The RPC lane has one worker; a library that calls sys.exit() in it must not end remote calls."""
    started(site, target=ODD)
    for code in range(3):
        site.insert_task(f"{ODD}.leave", code, lane=Lane.RPC)
        wait_until(lambda: site.gateway.log().count("died!") == code + 1, 20, "the worker died")  # noqa: B023
        wait_until(lambda: site.device.rpc("ping", timeout_s=3).response == PONG, 20, "the worker is back")


# --- stopping ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_while_the_drainers_linger_is_clean(site: Site, how: signal.Signals) -> None:
    started(site)
    site.arrives(3)
    assert site.gateway.stop(how) == 0
    assert "gateway stopped" in site.gateway.log()
    assert "Traceback" not in site.gateway.log()
    assert "Shutdown timeout" not in site.gateway.log(), "idle workers and lingering ones were told"
    site.inbox.insert(message(site.sent + 1))
    assert site.inbox.count() == 1, "nobody works on it any more"


def test_a_stop_does_not_wait_for_a_controller_that_never_pauses(site: Site) -> None:
    """Each message would keep the drainers lingering for five more seconds."""
    started(site)
    stopped = threading.Event()

    def record() -> None:
        while not stopped.wait(0.05):
            site.inbox.insert(message(1))

    recording = threading.Thread(target=record)
    recording.start()
    try:
        assert site.gateway.stop() == 0
    finally:
        stopped.set()
        recording.join()
    assert "Shutdown timeout" not in site.gateway.log()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_waits_for_a_task_that_is_busy(site: Site, how: signal.Signals, tmp_path: Path) -> None:
    started(site, target=ODD)
    site.insert_task(f"{ODD}.hold", 4.0, str(tmp_path / "busy"))
    wait_until((tmp_path / "busy.begun").exists, 20, "the task is running")
    assert site.gateway.stop(how) == 0
    assert (tmp_path / "busy.done").exists()


@pytest.mark.slow
def test_a_stop_does_not_wait_for_ever(site: Site, tmp_path: Path) -> None:
    started(site, target=ODD)
    site.insert_task(f"{ODD}.hold", 600.0, str(tmp_path / "busy"))
    wait_until((tmp_path / "busy.begun").exists, 20, "the task is running")
    assert site.gateway.stop(timeout_s=30.0) == 0


def test_a_stop_in_the_middle_of_a_drain_loses_and_doubles_nothing(site: Site) -> None:
    count = 20_000
    site.inbox.insert_many([message(number) for number in range(1, count + 1)])
    site.gateway.start()
    wait_until(lambda: len(site.numbers()) > 1000, 30, "the drain is under way")
    assert site.gateway.stop() == 0
    site.sent = count
    site.gateway.start()
    site.arrives(timeout_s=60)
    assert site.device.distinct >= count


def test_a_stop_while_waiting_for_a_queue_server_is_clean(site: Site) -> None:
    site.gateway.environment["TEG_QUEUE_URL"] = f"postgresql://127.0.0.1:{CLOSED_PORT}/none"
    site.gateway.environment |= queue_libraries.environment()
    site.gateway.start()
    site.gateway.wait_log("cannot be used now")
    assert site.gateway.stop() == 0
    assert "Traceback" not in site.gateway.log()


# --- a signal while the program is being loaded ------------------------------------------------------------------

LOADING = """
import os, signal, sys
sys.argv[0] = "/usr/bin/{name}"
import teg.wiring.early_stop
os.kill(os.getpid(), signal.{signal})
print("still here")
"""


def loading(name: str, number: str) -> subprocess.CompletedProcess[str]:
    code = LOADING.format(name=name, signal=number)
    return subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_a_stop_while_loading_ends_with_0(number: str) -> None:
    done = loading("huey_consumer", number)
    assert (done.returncode, done.stdout) == (0, "")


def test_a_hangup_while_loading_changes_nothing() -> None:
    assert loading("huey_consumer", "SIGHUP").stdout == "still here\n"


def test_other_programs_that_import_the_gateway_keep_their_signals() -> None:
    assert loading("pytest", "SIGTERM").returncode == -signal.SIGTERM


def test_the_gateway_prepares_for_a_stop_before_it_loads_anything() -> None:
    body = ast.parse((PROJECT / "gateway.py").read_text()).body
    first = next(node for node in body if isinstance(node, ast.Import | ast.ImportFrom))
    assert ast.unparse(first) == "import teg.wiring.early_stop"
