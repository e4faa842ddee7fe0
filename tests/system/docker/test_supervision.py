"""The controller supervised by a real gateway process in a real Docker Engine; with a server only where needed."""

import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest
from docker.errors import APIError

from teg.domain.supervision.runtime import CONTAINER_NAME, image_name
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.engine import BASE_IMAGE, Engine, closing_client, make_container, make_image, save, write_context
from tests.support.running import CLOSED_PORT, ControllerInbox, RunningGateway, message, wait_until

pytestmark = [pytest.mark.docker, pytest.mark.slow]

#: Measures five times a second, sends heartbeats, and does what a file `do` in its data directory says.
CONTROLLER = """\
import json, os, pathlib, signal, sqlite3, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("controller starts")
inbox = sqlite3.connect("/root/data/communication_queue.db", isolation_level=None, timeout=5)
inbox.execute("PRAGMA journal_mode=WAL")
inbox.execute("CREATE TABLE IF NOT EXISTS messages (id INTEGER PRIMARY KEY AUTOINCREMENT, type text, message text)")
inbox.execute("CREATE TABLE IF NOT EXISTS health_check (id INTEGER PRIMARY KEY, timestamp_ms INTEGER)")
asked = pathlib.Path("/root/data/do")
while True:
    word = asked.read_text() if asked.exists() else ""
    if word.startswith("exit"):
        asked.unlink()
        print("asked to " + word)
        os._exit(int(word[4:]))
    if word == "lock":
        asked.unlink()
        inbox.execute("BEGIN IMMEDIATE")
        inbox.execute("INSERT INTO messages (type, message) VALUES ('measurement', ?)", (json.dumps(
            {"ts": int(time.time() * 1000), "values": {"from_the_lock": 1}}),))
        pathlib.Path("/root/data/locked").write_text("")
        time.sleep(1.5)
        inbox.execute("COMMIT")
    now = int(time.time() * 1000)
    record = json.dumps({"ts": now, "values": {"measured": 1}})
    inbox.execute("INSERT INTO messages (type, message) VALUES ('measurement', ?)", (record,))
    if word != "silence":
        inbox.execute("INSERT OR REPLACE INTO health_check (id, timestamp_ms) VALUES (1, ?)", (now,))
    time.sleep(0.2)
"""


class SupervisedDevice:
    """A gateway and its controller; `told` is what the gateway would tell the server."""

    def __init__(self, directory: Path, at: Engine, port: int = CLOSED_PORT, **environment: str) -> None:
        self.engine = at
        self.gateway = RunningGateway(
            directory,
            "127.0.0.1",
            port,
            "T",
            TEG_CONTROLLER_RUNTIME="docker",
            DOCKER_HOST=at.host,
            TEG_DEFAULT_CONTROLLER_VERSION="v1",
            **environment,
        )
        self.directory = directory

    def provide(self, version: str = "v1", script: str = CONTROLLER) -> None:
        """As the reference gateway leaves it: an image without our label, and the file that names the version."""
        (self.gateway.data_path / "last_launched_controller_version.txt").write_text("v1")
        make_image(self.engine, image_name(version), write_context(self.directory / "context", script))

    def ask(self, word: str) -> None:
        (self.gateway.controller_path / "do").write_text(word)

    def told(self) -> dict[str, Any]:
        rows = self.gateway.rows("SELECT key, value FROM client_attribute")
        return {str(key): orjson.loads(value) for key, value in rows}  # type: ignore[arg-type]

    def events(self, key: str) -> list[Any]:
        rows = self.gateway.rows("SELECT message FROM record WHERE kind = 1 ORDER BY id")
        values = [orjson.loads(row[0])["values"] for row in rows]  # type: ignore[arg-type]
        return [each[key] for each in values if key in each]

    def wait_state(self, state: str, timeout_s: float = 40) -> None:
        wait_until(lambda: self.told().get("controller_state") == state, timeout_s, f"{state}, told: {self.told()}")

    def container(self) -> dict[str, Any] | None:
        try:
            with closing_client(self.engine.client) as client:
                return dict(client.inspect_container(CONTAINER_NAME))
        except APIError:
            return None

    def run_id(self) -> str | None:
        found = self.container()
        return found["Id"] + found["State"]["StartedAt"] if found and found["State"]["Running"] else None

    def wait_new_run(self, before: str | None, timeout_s: float = 40) -> str:
        wait_until(lambda: self.run_id() not in (None, before), timeout_s, "a new run of the controller")
        return str(self.run_id())

    def wait_measured(self, timeout_s: float = 20) -> None:
        """Measurements made from now on reach the archive."""
        before = self.gateway.archived()
        wait_until(lambda: self.gateway.archived() > before + 1, timeout_s, "measurements in the archive")

    def waited_s(self) -> list[float]:
        """What the gateway itself logged: seconds between each exit and the start that followed."""
        ended, waits = None, []
        for line in self.gateway.log().splitlines():
            if "the controller ended" in line:
                ended = _log_time(line)
            elif "start of controller" in line and ended is not None:
                waits.append(_log_time(line) - ended)
                ended = None
        return waits


def _log_time(line: str) -> float:
    moment, _, milliseconds = line[:23].partition(",")
    return time.mktime(time.strptime(moment, "%Y-%m-%d %H:%M:%S")) + int(milliseconds) / 1000


@pytest.fixture
def prepared(tmp_path: Path, clean_engine: Engine) -> Iterator[SupervisedDevice]:
    """A device before its gateway starts."""
    device = SupervisedDevice(tmp_path, clean_engine)
    device.provide()
    yield device
    device.gateway.kill()


@pytest.fixture
def device(prepared: SupervisedDevice) -> Iterator[SupervisedDevice]:
    with prepared.gateway:
        prepared.wait_state("running")
        yield prepared


def test_a_cold_start_without_network_runs_the_kept_image(device: SupervisedDevice) -> None:
    device.wait_measured()
    told = device.told()
    assert told["controller_version"] == "v1" and told["controller_restarts"] == 0
    assert abs(told["controller_running_since_ms"] - time.time() * 1000) < 120_000
    found = device.container()
    assert found is not None and found["Config"]["Labels"]["teg.version"] == "v1"


@pytest.mark.parametrize(("word", "code", "reason"), [("exit0", 0, "it ended by itself"), ("exit3", 3, "it crashed")])
def test_whatever_way_it_ends_it_runs_again(device: SupervisedDevice, word: str, code: int, reason: str) -> None:
    before = device.run_id()
    device.ask(word)
    device.wait_new_run(before)
    device.wait_state("running")
    wait_until(lambda: device.told()["controller_restarts"] == 1, 10, "one restart told")
    assert device.told()["controller_last_exit_code"] == code
    assert device.events("controller_exit_reason") == [reason]
    assert f"asked to {word}" in device.events("controller_exit_log")[0]
    assert [wait_s < 10 for wait_s in device.waited_s()] == [True]
    device.wait_measured()


def test_killed_and_removed_by_hand_it_comes_back(device: SupervisedDevice) -> None:
    before = device.run_id()
    with closing_client(device.engine.client) as client:
        client.kill(CONTAINER_NAME)
    between = device.wait_new_run(before)
    with closing_client(device.engine.client) as client:
        client.remove_container(CONTAINER_NAME, force=True)
    device.wait_new_run(between)
    device.wait_state("running")
    wait_until(lambda: device.told()["controller_restarts"] == 2, 10, "two restarts told")
    killed, removed = device.events("controller_exit_reason")
    assert killed == "it was killed"
    assert removed in ("its container was removed", "it was killed")  # a look may fall between the kill and the removal


def test_a_killed_gateway_finds_its_controller_and_lets_it_run(device: SupervisedDevice) -> None:
    before = device.run_id()
    device.gateway.kill()
    device.gateway.start()
    device.wait_measured()
    assert device.run_id() == before
    assert device.gateway.stop() == 0
    assert device.run_id() == before  # a stopped gateway does not stop the measuring either


def test_what_ended_while_the_gateway_was_away_is_started_and_told(device: SupervisedDevice) -> None:
    before = device.run_id()
    device.gateway.kill()
    device.ask("exit4")
    wait_until(lambda: device.run_id() is None, 10, "its end")
    device.gateway.start()
    device.wait_new_run(before)
    wait_until(lambda: device.events("controller_exit_code") == [4], 10, "the exit told")


def test_a_crash_loop_backs_off_over_a_restart_of_the_gateway(tmp_path: Path, clean_engine: Engine) -> None:
    device = SupervisedDevice(tmp_path, clean_engine)
    device.provide(script="print('no database')\nraise SystemExit(5)\n")
    with device.gateway:
        wait_until(lambda: len(device.events("controller_exit_code")) >= 2, 60, "two exits")
        device.gateway.kill()
        device.gateway.start()
        wait_until(lambda: len(device.events("controller_exit_code")) >= 3, 60, "three exits")
        assert device.events("controller_failures")[:3] == [1, 2, 3]
        assert device.events("controller_exit_log")[0] == "no database"


def test_silence_is_noticed_and_ended(tmp_path: Path, clean_engine: Engine) -> None:
    device = SupervisedDevice(tmp_path, clean_engine, TEG_HEALTH_LIMIT_S="4", TEG_START_GRACE_S="4")
    device.provide()
    with device.gateway:
        device.wait_state("running")
        before = device.run_id()
        device.ask("silence")
        device.wait_new_run(before)
        wait_until(
            lambda: device.events("controller_restart_reason")[:1] == ["no heartbeat for 4 s"], 10, "the reason told"
        )
        assert device.events("controller_exit_reason") == []  # our own stop is no exit of its own


def insert(device: SupervisedDevice, text: str) -> None:
    with closing(ControllerInbox(device.gateway.inbox_path)) as inbox:
        inbox.insert(text)


def test_a_foreign_container_with_our_name_is_told_and_left_alone(
    tmp_path: Path,
    clean_engine: Engine,
) -> None:
    theirs = make_container(clean_engine, CONTAINER_NAME, BASE_IMAGE, command="sleep 600")
    device = SupervisedDevice(tmp_path, clean_engine)
    device.provide()
    with device.gateway, closing_client(clean_engine.client) as client:
        device.wait_state("name taken")
        insert(device, message(1))
        wait_until(lambda: device.gateway.archived() == 1, 20, "telemetry flows nevertheless")
        assert client.inspect_container(CONTAINER_NAME)["Id"] == theirs
        client.rename(CONTAINER_NAME, "theirs")
        device.wait_state("running")
        assert client.inspect_container("theirs")["Id"] == theirs
        client.remove_container("theirs", force=True)


def test_paused_while_it_holds_the_inbox(device: SupervisedDevice) -> None:
    """Scenario 33: the gateway stays up, says so, and nothing of what was in the lock is lost."""
    device.ask("lock")
    wait_until((device.gateway.controller_path / "locked").exists, 10, "the controller's lock")
    before = device.run_id()
    with closing_client(device.engine.client) as client:
        client.pause(CONTAINER_NAME)
        device.wait_state("paused")
        another = sqlite3.connect(device.gateway.inbox_path, timeout=0.1, isolation_level=None)
        with closing(another), pytest.raises(sqlite3.OperationalError, match="locked"):
            another.execute("BEGIN IMMEDIATE")
        device.engine.state()
        assert device.gateway.process is not None and device.gateway.process.poll() is None
        client.unpause(CONTAINER_NAME)
    device.wait_state("running")
    device.wait_measured()
    assert device.run_id() == before
    rows = device.gateway.rows("SELECT count(*) FROM record WHERE message LIKE '%from_the_lock%'")
    assert rows == [(1,)]


@pytest.mark.parametrize("with_signal", [signal.SIGTERM, signal.SIGKILL])
def test_the_engine_goes_and_comes_back(
    engine_to_stop: Engine,
    device: SupervisedDevice,
    with_signal: signal.Signals,
) -> None:
    device.wait_measured()  # a Python that has only just started does not hear SIGTERM as process 1
    engine_to_stop.stop(with_signal)
    device.wait_state("engine unreachable")
    before = device.gateway.archived()
    insert(device, message(1))
    wait_until(lambda: device.gateway.archived() > before, 20, "telemetry flows without an engine")
    engine_to_stop.start()
    device.wait_state("running")
    device.wait_measured()
    assert device.gateway.stop() == 0


def test_the_gateway_starts_before_the_engine(engine_to_stop: Engine, prepared: SupervisedDevice) -> None:
    engine_to_stop.stop()
    with prepared.gateway:
        prepared.wait_state("engine unreachable")
        engine_to_stop.start()
        prepared.wait_state("running")


def test_an_image_removed_by_hand_is_told_and_the_rest_goes_on(device: SupervisedDevice, tmp_path: Path) -> None:
    """Another image of that name is not taken for it; the same one is."""
    archive = save(device.engine, tmp_path / "v1.tar", image_name("v1"))
    with closing_client(device.engine.client) as client:
        client.remove_container(CONTAINER_NAME, force=True)
        client.remove_image(image_name("v1"), force=True)
    device.wait_state("image missing")
    insert(device, message(1))
    device.provide(script=CONTROLLER + "# another one\n")
    with closing_client(device.engine.client) as client:
        list(client.load_image(archive.read_bytes()))
    device.wait_state("running", timeout_s=90)


@pytest.mark.parametrize("asked", ["rpc", "settings"])
def test_restarts_that_were_asked_for(tmp_path: Path, clean_engine: Engine, asked: str) -> None:
    with ThingsBoard() as server:
        remote = server.add_device("pi", token="T")
        device = SupervisedDevice(tmp_path, clean_engine, server.port)
        device.provide()
        with device.gateway:
            device.wait_state("running")
            before = device.run_id()
            acts: dict[str, Callable[[], None]] = {
                "rpc": lambda: _restart_by_rpc(remote),
                "settings": lambda: _restart_with(device, TEG_CONTROLLER_PIDS="99"),
            }
            acts[asked]()
            device.wait_new_run(before)
            device.wait_state("running")
            device.wait_measured()
            assert device.events("controller_exit_reason") == []
            found = device.container()
            assert found is not None and found["HostConfig"]["PidsLimit"] == (256 if asked == "rpc" else 99)


def _restart_by_rpc(remote: Any) -> None:
    wait_until(lambda: remote.connected, 30, "the session")
    assert remote.rpc("restart_controller").response == {"message": "OK - Restarting Controller"}


def _restart_with(device: SupervisedDevice, **environment: str) -> None:
    assert device.gateway.stop() == 0
    device.gateway.environment |= environment
    device.gateway.start()


# --- the change-over ---------------------------------------------------------------------------------------------

#: Ends at once where it has less than the reference gateway gave it.
NEEDY = (
    "import os, sys\n"
    "rights = [line.split()[1] for line in open('/proc/self/status') if line.startswith('CapEff')][0]\n"
    "if not int(rights, 16) & 1 << 13 or not os.path.exists('/dev/sensor') or not os.path.exists('/maps/map'):\n"
    "    sys.exit('a right is missing')\n"
    "if os.listdir('/sys/class/net') == ['lo']:\n"
    "    sys.exit('the network is missing')\n"
) + CONTROLLER


def test_a_controller_of_the_reference_gateway_goes_on_with_what_it_had(
    tmp_path: Path,
    clean_engine: Engine,
) -> None:
    """Privileged containers cannot run everywhere; the single rights that stand for them here can."""
    device = SupervisedDevice(tmp_path, clean_engine)
    device.provide(script=NEEDY)
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "map").write_text("a map")
    with closing_client(clean_engine.client) as client:
        host = client.create_host_config(
            network_mode="host",
            cap_add=["NET_RAW"],
            devices=["/dev/null:/dev/sensor:rw"],
            binds=[
                f"{device.gateway.controller_path}:/root/data",
                f"{tmp_path}/maps:/maps:ro",
                f"{device.gateway.data_path}:/private",
            ],
        )
        theirs = make_container(clean_engine, CONTAINER_NAME, image_name("v1"), host_config=host)
        client.start(theirs)
    with device.gateway as gateway:
        wait_until(lambda: (found := device.container()) and found["Id"] != theirs, 40, "a container of our own")
        device.wait_state("running")
        device.wait_measured()
        found = device.container()
        assert found is not None
        host = found["HostConfig"]
        assert (host["NetworkMode"], host["CapAdd"], host["CapDrop"]) == ("host", ["NET_RAW"], ["ALL"])
        assert [mount["Target"] for mount in host["Mounts"]] == ["/root/data", "/root/logs", "/maps"]
        assert "the controller keeps what the previous gateway gave it" in gateway.log()
        assert "a mount of the former container is not kept" in gateway.log(), "the gateway's own files are not its"
        before = device.run_id()
        gateway.stop()
        gateway.start()
        device.wait_measured()
        assert device.run_id() == before, "the next life of the gateway knows them, too"
        gateway.stop()
        gateway.environment |= {"TEG_CONTROLLER_CAPABILITIES": "none", "TEG_CONTROLLER_NETWORK": "bridge"}
        gateway.start()
        kept = found["Id"]
        wait_until(lambda: (found := device.container()) and found["Id"] != kept, 40, "a container by the settings")
        found = device.container()
        assert found is not None and not found["HostConfig"]["CapAdd"]
        assert found["HostConfig"]["NetworkMode"] == "bridge"


STUBBORN = CONTROLLER.replace("lambda *_: sys.exit(0)", "lambda *_: None")


def test_a_stop_in_the_middle_of_a_stop_of_the_controller(
    tmp_path: Path,
    clean_engine: Engine,
) -> None:
    """A controller that does not end takes a minute to be killed; the gateway neither waits for that nor stumbles."""
    device = SupervisedDevice(tmp_path, clean_engine, TEG_HEALTH_LIMIT_S="3", TEG_START_GRACE_S="5")
    device.provide(script=STUBBORN)
    with device.gateway as gateway:
        device.wait_state("running")
        device.ask("silence")
        gateway.wait_log("restart of controller v1", 60)
        assert gateway.stop() == 0
        assert "Traceback" not in gateway.log()
