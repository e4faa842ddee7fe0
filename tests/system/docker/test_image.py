"""The image, built and run by a real engine: no root inside, everything that matters in its volume, a health check."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.engine import BASE_IMAGE, Engine, clean_engine, engine
from tests.support.packaging import needs, wheels, wheels_with_redis
from tests.support.running import PROJECT, wait_until

__all__ = ["clean_engine", "engine", "wheels", "wheels_with_redis"]  # fixtures

IMAGE = "teg-gateway-test"
CONTAINER = "teg-gateway-test"


def docker(engine: Engine, *arguments: object, check: bool = True) -> str:
    command = ["docker", "--host", engine.host, *map(str, arguments)]
    environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert not check or done.returncode == 0, f"{arguments}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout.strip()


@pytest.fixture
def image(clean_engine: Engine, wheels: Path, tmp_path: Path) -> Iterator[Engine]:
    needs("docker")
    yield from built(clean_engine, wheels, tmp_path / "context")


def built(engine: Engine, wheels: Path, context: Path, *arguments: str) -> Iterator[Engine]:
    """From the Dockerfile and `.dockerignore` as they are, without a network."""
    shutil.copytree(wheels, context / "dist" / "wheels")
    for name in ("Dockerfile", ".dockerignore"):
        shutil.copy(PROJECT / name, context / name)
    (context / "tb_access_token").write_text("a secret that lies about")
    docker(engine, "build", "-q", "--network=none", f"--build-arg=BASE={BASE_IMAGE}", "--build-arg=PACKAGES=",
           *arguments, "-t", IMAGE, context)  # fmt: skip
    yield engine
    docker(engine, "rm", "-f", CONTAINER, check=False)
    docker(engine, "rmi", "-f", IMAGE, check=False)


@pytest.mark.torture
@pytest.mark.timeout(1200)  # once a machine the wheels of nine Pythons are fetched
def test_an_extra_is_in_the_image_and_comes_with_the_wheels(
    clean_engine: Engine, wheels_with_redis: Path, tmp_path: Path
) -> None:
    needs("docker")
    for image in built(clean_engine, wheels_with_redis, tmp_path / "context", "--build-arg=EXTRAS=redis"):
        command = ("run", "--rm", "--network=none", "--entrypoint=python", IMAGE, "-c")
        pinned = next(line for line in (PROJECT / "constraints.txt").read_text().splitlines() if line[:7] == "redis==")
        assert docker(image, *command, "import redis; print(redis.__version__)") == pinned.removeprefix("redis==")
        assert docker(image, *command, "import gateway; print(gateway.huey.name)") == "teg"


@pytest.fixture
def server(image: Engine, tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """(port, file of accounts) of a stand-in in the engine's network, which lets devices make themselves."""
    accounts = tmp_path / "accounts.json"
    command = [*image.inside(), sys.executable, "-m", "teg.simulator.thingsboard", "--port=0", "--provision=KEY:SECRET"]
    process = subprocess.Popen(
        [*command, f"--state-file={accounts}", "--interval=0.2"], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        port = json.loads(process.stdout.readline())["listening"]["port"]
        yield port, accounts
    finally:
        process.kill()
        process.communicate()


def start(engine: Engine, port: int, data: Path, *arguments: str) -> None:
    variables = {
        "TB_TLS": "off",
        "TEG_CONTROLLER_RUNTIME": "none",
        "THINGSBOARD_DEVICE_NAME": "boxed",
        "THINGSBOARD_PROVISION_DEVICE_KEY": "KEY",
        "THINGSBOARD_PROVISION_DEVICE_SECRET": "SECRET",
    }
    docker(
        engine, "run", "-d", "--name", CONTAINER, "--network=host", "--cap-drop=ALL", "--cap-add=DAC_OVERRIDE",
        *(f"--env={name}={value}" for name, value in variables.items()), f"--volume={data}:/var/lib/teg",
        IMAGE, "--tb-host", "127.0.0.1", "--tb-port", port, *arguments,
    )  # fmt: skip


def account(accounts: Path) -> dict[str, object]:
    found = json.loads(accounts.read_text()) if accounts.exists() else {}
    device: dict[str, object] = found.get("devices", {}).get("boxed", {})
    return device


def inbox_of_root(data: Path, rows: int) -> None:
    """As a controller that is root in its container makes it: SQLite gives its files 0644."""
    with closing(sqlite3.connect(data / "controller" / "communication_queue.db")) as inbox:
        inbox.execute("PRAGMA journal_mode=WAL")
        inbox.execute(
            "CREATE TABLE IF NOT EXISTS messages (id INTEGER PRIMARY KEY AUTOINCREMENT, type text, message text)"
        )
        now_ms = time.time_ns() // 1_000_000
        for number in range(rows):
            record = json.dumps({"ts": now_ms + number, "values": {"n": number}})
            inbox.execute("INSERT INTO messages (type, message) VALUES ('measurement', ?)", (record,))
        inbox.commit()


def test_the_image_at_work_and_recreated(image: Engine, server: tuple[int, Path], tmp_path: Path) -> None:
    port, accounts = server
    data = tmp_path / "data"
    (data / "controller").mkdir(parents=True)
    for path in (data, data / "controller"):
        os.chown(path, 10001, 10001)
    data.chmod(0o700)
    inbox_of_root(data, 3)

    start(image, port, data)
    wait_until(lambda: account(accounts).get("connections") or account(accounts), 60, "it provisioned itself")
    wait_until(lambda: (data / "tb_access_token").exists(), 30, "the token is in the volume")
    with closing(sqlite3.connect(data / "controller" / "communication_queue.db")) as inbox:
        waiting = "SELECT count(*) FROM messages"
        wait_until(lambda: inbox.execute(waiting).fetchone() == (0,), 60, "what root wrote was read and removed")
    token = (data / "tb_access_token").read_text()
    assert docker(image, "exec", CONTAINER, "id", "-u") == "10001"
    docker(image, "exec", CONTAINER, "teg", "status", "--alive")
    healthcheck = json.loads(docker(image, "inspect", "-f", "{{json .Config.Healthcheck.Test}}", CONTAINER))
    assert healthcheck == ["CMD", "teg", "status", "--alive"]
    shown = docker(
        image, "exec", "--user=0", CONTAINER, "sh", "-c", "find / -xdev -name '*tb_access_token*' -not -path '/proc/*'"
    )
    assert shown == "", "nothing that lay about was copied into the image"

    docker(image, "stop", "--time=40", CONTAINER)
    assert docker(image, "inspect", "-f", "{{.State.ExitCode}}", CONTAINER) == "0"
    docker(image, "rm", CONTAINER)
    start(image, port, data)
    wait_until(lambda: "server       connected since" in docker(image, "exec", CONTAINER, "teg", "status", check=False),
               60, "the new container is the same device")  # fmt: skip
    assert (data / "tb_access_token").read_text() == token
    assert "provision" not in docker(image, "logs", CONTAINER)
