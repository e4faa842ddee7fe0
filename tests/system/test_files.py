"""Remote files through a real consumer and the ThingsBoard stand-in."""

import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from teg.adapters.confined_files import TEMPORARY_PREFIX
from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.faults import next_n, when
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.running import PROJECT, ControllerInbox, RunningGateway, wait_until

PUSHES = "v1/devices/me/attributes"


@pytest.fixture
def server() -> Iterator[ThingsBoard]:
    with ThingsBoard() as server:
        yield server


@pytest.fixture
def device(server: ThingsBoard) -> Device:
    return server.add_device("pi-07", token="T1")


@pytest.fixture
def gateway(server: ThingsBoard, device: Device, tmp_path: Path) -> Iterator[RunningGateway]:
    with RunningGateway(tmp_path, server.host, server.port, "T1") as gateway:
        device.wait_subscribed(PUSHES, timeout_s=30)
        yield gateway


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def file_at(gateway: RunningGateway, name: str) -> Path:
    return gateway.controller_path / name


def define(device: Device, **definitions: dict[str, Any]) -> None:
    device.set_shared({"FILES": {key: {"path": f"$DATA_PATH/{key}"} | fields for key, fields in definitions.items()}})


def wait_content(path: Path, content: bytes, timeout_s: float = 20.0) -> None:
    wait_until(lambda: path.exists() and path.read_bytes() == content, timeout_s, f"{content!r} in {path}")


def wait_client(device: Device, timeout_s: float = 20.0, **expected: Any) -> None:
    device.wait_for(
        lambda device: expected.items() <= device.client_attributes.items(), timeout_s, f"client attributes {expected}"
    )


def test_a_file_is_written_changed_and_read_back(device: Device, gateway: RunningGateway) -> None:
    define(device, cfg={"encoding": "json", "write_version": 1})
    device.set_shared({"FILE_CONTENT_cfg": {"interval": 5}})
    wait_content(file_at(gateway, "cfg"), b'{"interval": 5}')
    device.set_shared({"FILE_CONTENT_cfg": {"interval": 7}})
    wait_content(file_at(gateway, "cfg"), b'{"interval": 7}')
    wait_client(
        device,
        FILE_HASHES={"cfg": {"hash": md5(b'{"interval": 7}'), "write_version": 1}},
        FILE_READ_cfg={"interval": 7},
    )
    device.delete_shared(["FILES"])
    wait_client(device, FILE_HASHES={}, FILE_READ_cfg="")
    assert file_at(gateway, "cfg").read_bytes() == b'{"interval": 7}'


def test_digits_lose_their_zeros_unless_the_text_ends_with_a_line_break(
    device: Device, gateway: RunningGateway
) -> None:
    define(device, bare={}, ended={})
    device.set_shared({"FILE_CONTENT_bare": "007", "FILE_CONTENT_ended": "007\n"})
    wait_content(file_at(gateway, "bare"), b"7")
    wait_content(file_at(gateway, "ended"), b"007\n")


def test_changes_made_while_the_device_was_away(server: ThingsBoard, device: Device, gateway: RunningGateway) -> None:
    server.stop_listening()
    define(device, cfg={})
    device.set_shared({"FILE_CONTENT_cfg": "written in its absence"})
    server.start_listening()
    wait_content(file_at(gateway, "cfg"), b"written in its absence", 60)


def test_pushes_that_overtake_each_other(server: ThingsBoard, device: Device, gateway: RunningGateway) -> None:
    define(device, cfg={})
    server.faults.reorder_downlinks = when(lambda message: message.topic == PUSHES)
    for number in range(6):
        device.set_shared({"FILE_CONTENT_cfg": f"content {number}"})
    wait_content(file_at(gateway, "cfg"), b"content 5")
    wait_client(device, FILE_READ_cfg="content 5")


def test_an_old_snapshot_after_a_newer_push(server: ThingsBoard, device: Device, gateway: RunningGateway) -> None:
    define(device, cfg={})
    device.set_shared({"FILE_CONTENT_cfg": "old"})
    wait_content(file_at(gateway, "cfg"), b"old")
    requests = len(device.attribute_requests)
    server.faults.stale_attribute_response = next_n(1)
    device.set_shared({"FILE_CONTENT_cfg": "between"})
    device.wait_for(lambda device: len(device.attribute_requests) > requests, 10, "the request that is held back")
    device.set_shared({"FILE_CONTENT_cfg": "new"})
    wait_content(file_at(gateway, "cfg"), b"new")


def test_a_made_up_push_is_not_believed(device: Device, gateway: RunningGateway) -> None:
    define(device, cfg={})
    device.set_shared({"FILE_CONTENT_cfg": "true"})
    wait_content(file_at(gateway, "cfg"), b"true")
    requests = len(device.attribute_requests)
    device.push({"FILE_CONTENT_cfg": "stale", "FILES": {}})
    device.wait_for(lambda device: len(device.attribute_requests) >= requests + 2, 20, "the question that it causes")
    device.set_shared({"FILE_CONTENT_cfg": "next"})
    wait_content(file_at(gateway, "cfg"), b"next")


@pytest.mark.slow
def test_an_answer_that_never_comes_is_asked_for_again(
    server: ThingsBoard, device: Device, gateway: RunningGateway
) -> None:
    define(device, cfg={})
    wait_client(device, FILE_READ_cfg="E_NOFILE")
    server.faults.swallow_attribute_responses = next_n(2)
    device.set_shared({"FILE_CONTENT_cfg": "x"})
    wait_content(file_at(gateway, "cfg"), b"x", 60)


def test_a_large_file_is_mirrored_and_the_session_stays(device: Device, gateway: RunningGateway) -> None:
    sessions = len(device.sessions)
    data = b"x" * 200_000
    file_at(gateway, "big").write_bytes(data)
    define(device, big={})
    wait_client(device, FILE_READ_big=f"E_TOOLARGE size=200000 md5={md5(data)}")
    assert len(device.sessions) == sessions


def test_bad_ones_do_not_hold_up_the_good_one(device: Device, gateway: RunningGateway, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("untouched")
    file_at(gateway, "link").symlink_to(outside)
    device.set_shared(
        {
            "FILES": {
                "good": {"path": "$DATA_PATH/good"},
                "link": {"path": "$DATA_PATH/link"},
                "inbox": {"path": "$DATA_PATH/communication_queue.db"},
                "far": {"path": str(outside)},
                "odd": 5,
            }
        }
        | {f"FILE_CONTENT_{key}": "evil" for key in ("link", "inbox", "far", "odd")}
        | {"FILE_CONTENT_good": "good"}
    )
    wait_content(file_at(gateway, "good"), b"good")
    device.wait_for(
        lambda device: (
            {f"FILE_ERROR_{key}" for key in ("link", "inbox", "far", "odd")} <= set(device.client_attributes)
        ),
        20,
        "one error each",
    )
    errors = device.client_attributes
    assert "symbolic link" in errors["FILE_ERROR_link"]
    assert "gateway itself" in errors["FILE_ERROR_inbox"]
    assert "TEG_FILE_ROOTS" in errors["FILE_ERROR_far"]
    assert "not an object" in errors["FILE_ERROR_odd"]
    assert outside.read_text() == "untouched"


def test_init_files_by_rpc(device: Device, gateway: RunningGateway) -> None:
    define(device, cfg={})
    device.set_shared({"FILE_CONTENT_cfg": "x"})
    wait_client(device, FILE_READ_cfg="x")
    device.set_client({"FILE_READ_cfg": "lost", "FILE_HASHES": "lost"})
    assert device.rpc("init_files").response == {"message": "Files client attributes initialized"}
    wait_client(device, FILE_READ_cfg="x", FILE_HASHES={"cfg": {"hash": md5(b"x"), "write_version": None}})


@pytest.mark.slow
def test_drift_is_undone_and_mirrored_files_are_sent_again(device: Device, gateway: RunningGateway) -> None:
    file_at(gateway, "log").write_text("one")
    define(device, cfg={}, log={})
    device.set_shared({"FILE_CONTENT_cfg": "wanted"})
    wait_client(device, FILE_READ_cfg="wanted", FILE_READ_log="one")
    file_at(gateway, "cfg").write_text("edited by hand")
    file_at(gateway, "log").write_text("two")
    wait_content(file_at(gateway, "cfg"), b"wanted", 35)
    wait_client(device, FILE_READ_log="two")


@pytest.mark.slow
def test_kill_9_again_and_again_during_changes(device: Device, gateway: RunningGateway) -> None:
    define(device, cfg={})
    file_at(gateway, "cfg").write_bytes(b"0" * 500_000)
    allowed = {b"0" * 500_000}
    for number in range(1, 8):
        content = str(number % 10) * 500_000
        device.set_shared({"FILE_CONTENT_cfg": f"{content}\n"})
        allowed.add(f"{content}\n".encode())
        device.wait_for(lambda device: device.connected, 30, "connected")
        gateway.kill()
        assert file_at(gateway, "cfg").read_bytes() in allowed, "half a file"
        gateway.start()
    wait_content(file_at(gateway, "cfg"), f"{'7' * 500_000}\n".encode(), 60)
    left = [path.name for path in gateway.controller_path.iterdir() if path.name.startswith(TEMPORARY_PREFIX)]
    assert left == []


# --- commit-confirm ----------------------------------------------------------------------------------------------


def test_a_change_is_confirmed_by_a_round_trip(device: Device, gateway: RunningGateway) -> None:
    define(device, net={"confirm_s": 4})
    device.set_shared({"FILE_CONTENT_net": "new"})
    wait_client(device, FILE_CONFIRM_net="confirmed")
    assert file_at(gateway, "net").read_text() == "new"


@pytest.mark.slow
def test_a_change_that_cuts_the_link_is_put_back_and_said_later(
    server: ThingsBoard, device: Device, gateway: RunningGateway
) -> None:
    file_at(gateway, "net").write_text("old")
    define(device, net={"confirm_s": 8, "write_version": 1})
    device.set_shared({"FILE_CONTENT_net": "new"})
    wait_content(file_at(gateway, "net"), b"new")
    server.stop_listening()
    gateway.kill()
    gateway.start()
    wait_content(file_at(gateway, "net"), b"old", 30)
    server.start_listening()
    said = "put back: no answer from the server within 8 s; change write_version to try this content again"
    wait_client(
        device,
        60,
        FILE_CONFIRM_net=said,
        FILE_ERROR_net=said,
        FILE_HASHES={"net": {"hash": md5(b"old"), "write_version": None}},
    )
    define(device, net={"confirm_s": 8, "write_version": 2})
    wait_content(file_at(gateway, "net"), b"new")
    wait_client(device, 30, FILE_CONFIRM_net="confirmed", FILE_ERROR_net="")


HEARTBEATS = """
import pathlib, sqlite3, sys, time
data = pathlib.Path(sys.argv[1])
pathlib.Path(data / "starts").open("a").write("x")
if (data / "cfg").exists() and (data / "cfg").read_text() == "bad":
    time.sleep(600)
inbox = sqlite3.connect(data / "communication_queue.db", isolation_level=None, timeout=5)
inbox.execute("CREATE TABLE IF NOT EXISTS health_check (id INTEGER PRIMARY KEY, timestamp_ms INTEGER)")
while True:
    inbox.execute("INSERT OR REPLACE INTO health_check VALUES (1, ?)", (time.time_ns() // 1_000_000,))
    time.sleep(0.1)
"""


@pytest.mark.slow
def test_a_content_that_silences_the_controller_is_put_back(
    server: ThingsBoard, device: Device, tmp_path: Path
) -> None:
    """A real controller process that hangs with the bad content, and is restarted with the good one."""
    script = tmp_path / "heartbeats.py"
    script.write_text(HEARTBEATS)
    controller = tmp_path / "controller"
    controller.mkdir()
    ControllerInbox(controller / "communication_queue.db").close()
    with RunningGateway(
        tmp_path,
        server.host,
        server.port,
        "T1",
        TEG_CONTROLLER_RUNTIME="process",
        TEG_CONTROLLER_COMMAND=f"{sys.executable} {script} {controller}",
    ) as gateway:
        wait_until((controller / "starts").exists, 60, "the controller runs")
        define(device, cfg={"confirm_s": 20, "restart_controller_on_change": True, "write_version": 1})
        device.set_shared({"FILE_CONTENT_cfg": "good"})
        wait_client(device, 60, FILE_CONFIRM_cfg="confirmed")
        starts = (controller / "starts").stat().st_size
        assert starts == 2
        device.set_shared({"FILE_CONTENT_cfg": "bad"})
        wait_content(controller / "cfg", b"bad")
        wait_content(controller / "cfg", b"good", 60)
        device.wait_for(
            lambda device: "no heartbeat" in str(device.client_attributes.get("FILE_CONFIRM_cfg")), 20, "the reason"
        )
        wait_until(lambda: (controller / "starts").stat().st_size == starts + 2, 60, "restarted with the good one")
        assert gateway.stop() == 0  # which ends the controller, too


def test_the_project_folder_is_not_a_place_for_files(server: ThingsBoard, device: Device, tmp_path: Path) -> None:
    """Without any setting the reference's data folder is the program's own: refused, in plain words."""
    with RunningGateway(tmp_path, server.host, server.port, "T1", TEG_FILE_ROOTS=str(PROJECT)):
        device.wait_subscribed(PUSHES, timeout_s=30)
        device.set_shared(
            {"FILES": {"code": {"path": f"{PROJECT}/sitecustomize.py"}}, "FILE_CONTENT_code": "import os"}
        )
        device.wait_for(lambda device: "FILE_ERROR_code" in device.client_attributes, 20, "an error")
        assert "gateway itself" in device.client_attributes["FILE_ERROR_code"]
    assert not (PROJECT / "sitecustomize.py").exists()
    assert os.access(PROJECT / "gateway.py", os.R_OK)
