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

from teg.domain.supervision.runtime import CONTAINER_NAME, image_name
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.engine import BASE_IMAGE, Engine, closing_client, make_container, save
from tests.support.running import ControllerInbox, message, wait_until
from tests.support.supervised_device import CONTROLLER, SupervisedDevice

pytestmark = [pytest.mark.docker, pytest.mark.slow]


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


def failures_noted(device: SupervisedDevice) -> int:
    [(noted,)] = device.gateway.rows("SELECT value FROM state WHERE key = 'controller.history'")
    return int(orjson.loads(str(noted))["failures"])


def test_a_crash_loop_backs_off_over_a_restart_of_the_gateway(tmp_path: Path, clean_engine: Engine) -> None:
    device = SupervisedDevice(tmp_path, clean_engine)
    device.provide(script="print('no database')\nraise SystemExit(5)\n")
    with device.gateway:
        wait_until(lambda: len(device.events("controller_exit_code")) >= 2, 60, "two exits")
        wait_until(lambda: failures_noted(device) == 2, 10, "the second is noted, which is after it was told")
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
