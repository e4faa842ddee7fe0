"""`teg init` has the server make the device: by a user and a password, by a token; nothing of those is kept."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from teg.adapters.thingsboard_rest import authorization
from teg.settings import read_env_file
from teg.simulator.thingsboard.server import ThingsBoard

TEG = str(Path(sys.executable).parent / "teg")
USER, PASSWORD = "tenant@thingsboard.org", "tenant"


@pytest.fixture
def server() -> Iterator[ThingsBoard]:
    with ThingsBoard(rest_port=0) as server:
        yield server


def init(server: ThingsBoard, directory: Path, *answers: object) -> subprocess.CompletedProcess[str]:
    file = directory / "teg.env"
    file.write_text(f"TEG_DATA_PATH={directory}/data\nTEG_CONTROLLER_RUNTIME=none\n")
    lines = [server.host, "n", server.port, "create", *answers]
    typed = "".join(f"{line}\n" for line in lines)
    return subprocess.run([TEG, "init", "--file", file], input=typed, capture_output=True, text=True, timeout=60)


def session_token(server: ThingsBoard) -> str:
    answer = requests.post(
        f"{server.rest_url}/api/auth/login", json={"username": USER, "password": PASSWORD}, timeout=20
    )
    return str(answer.json()["token"])


def everything_in(directory: Path) -> str:
    return "".join(path.read_text(errors="replace") for path in directory.rglob("*") if path.is_file())


@pytest.mark.parametrize("way", ["password", "token"])
def test_the_device_is_made_and_its_token_tried_and_stored(server: ThingsBoard, tmp_path: Path, way: str) -> None:
    secret = session_token(server)
    credentials = (USER, PASSWORD) if way == "password" else ("", secret)
    done = init(server, tmp_path, server.rest_url, "pi-07 of Ömer", *credentials)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "device 'pi-07 of Ömer' is on the server" in done.stdout
    assert "✓ access token: the server takes it" in done.stdout
    device = server.device("pi-07 of Ömer")
    token = (tmp_path / "data" / "tb_access_token").read_text()
    assert device.sessions, "tried with the token of the new device"
    assert token
    kept = everything_in(tmp_path)
    assert USER not in kept
    assert secret not in kept + done.stdout
    assert read_env_file(tmp_path / "teg.env")["TB_HOST"] == server.host


def test_a_device_that_is_there_is_taken_only_when_it_is_this_one(server: ThingsBoard, tmp_path: Path) -> None:
    server.add_device("pi-07", token="T-of-old")
    no = init(server, tmp_path, server.rest_url, "pi-07", USER, PASSWORD, "n")
    assert no.returncode == 1
    assert not (tmp_path / "data").exists()
    yes = init(server, tmp_path, server.rest_url, "pi-07", USER, PASSWORD, "y")
    assert yes.returncode == 0, yes.stdout + yes.stderr
    assert (tmp_path / "data" / "tb_access_token").read_text() == "T-of-old"


def test_a_wrong_password_is_told_and_nothing_is_written(server: ThingsBoard, tmp_path: Path) -> None:
    done = init(server, tmp_path, server.rest_url, "pi-07", USER, "wrong-canary")
    assert done.returncode == 1
    assert "the device is not made: " in done.stderr
    assert "Invalid username or password (401)" in done.stderr
    assert "TB_HOST" not in everything_in(tmp_path)
    assert "wrong-canary" not in done.stdout + done.stderr


def test_an_api_key_is_told_from_a_sessions_token() -> None:
    assert authorization("a.b.c") == "Bearer a.b.c"
    assert authorization("tb_key") == "ApiKey tb_key"
