"""A whole device for tests of updates: a Git repository of controller versions, a real gateway, a real engine."""

import gzip
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from teg.domain.supervision.runtime import CONTAINER_NAME, IMAGE_PREFIX, image_name
from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.engine import BASE_IMAGE, Engine, closing_client, make_image
from tests.support.running import RunningGateway, wait_until

AUTHOR = ("-c", "user.name=Operator", "-c", "user.email=operator@example.com")
DOCKERFILE = f'FROM {BASE_IMAGE}\nCOPY main.py /main.py\nCMD ["python3", "-u", "/main.py"]\n'
#: What a controller of the field does, five times a second; or it crashes, sends no heartbeat, or another key.
CONTROLLER = """\
import json, os, signal, sqlite3, sys, time
VERSION, BEHAVIOUR = {version!r}, {behaviour!r}
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("controller", VERSION, "starts")
if BEHAVIOUR == "crashes":
    raise SystemExit("the sensor of " + VERSION + " does not answer")
data = os.environ.get("TEG_CONTROLLER_DATA_PATH", "/root/data")
inbox = sqlite3.connect(data + "/communication_queue.db", isolation_level=None, timeout=5)
inbox.execute("PRAGMA journal_mode=WAL")
inbox.execute("CREATE TABLE IF NOT EXISTS messages (id INTEGER PRIMARY KEY AUTOINCREMENT, type text, message text)")
inbox.execute("CREATE TABLE IF NOT EXISTS health_check (id INTEGER PRIMARY KEY, timestamp_ms INTEGER)")
while True:
    now = int(time.time() * 1000)
    key = "renamed" if BEHAVIOUR == "renames" else "controller"
    record = json.dumps({{"ts": now, "values": {{key: VERSION}}}})
    inbox.execute("INSERT INTO messages (type, message) VALUES ('measurement', ?)", (record,))
    if BEHAVIOUR != "silent":
        inbox.execute("INSERT OR REPLACE INTO health_check (id, timestamp_ms) VALUES (1, ?)", (now,))
    time.sleep(0.2)
"""
#: The versions every repository here has.
BEHAVIOURS = {"v1": "works", "v2": "works", "v3": "crashes", "v4": "silent", "v5": "works", "v6": "renames"}
TRIAL_S = 4


def git(where: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(where), *AUTHOR, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def write_version(directory: Path, version: str, behaviour: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "Dockerfile").write_text(DOCKERFILE)
    (directory / "main.py").write_text(CONTROLLER.format(version=version, behaviour=behaviour))


def make_repository(path: Path, behaviours: Mapping[str, str] = BEHAVIOURS) -> Path:
    path.mkdir(parents=True)
    git(path, "init", "-q", "-b", "main")
    for version, behaviour in behaviours.items():
        write_version(path / "docker", version, behaviour)
        git(path, "add", "-A")
        git(path, "commit", "-q", "-m", version)
        git(path, "tag", version)
    return path


class OtaDevice:
    """One device: `server` assigns, `gateway` obeys, `engine` runs; what is told is read back from the server."""

    def __init__(self, directory: Path, server: ThingsBoard, engine: Engine, **environment: str) -> None:
        self.directory = directory
        self.server = server
        self.engine = engine
        self.device: Device = server.add_device("pi", token="T")
        self.repository = make_repository(directory / "controller-repository")
        self.gateway = RunningGateway(
            directory,
            server.host,
            server.port,
            "T",
            TEG_CONTROLLER_RUNTIME="docker",
            DOCKER_HOST=engine.host,
            TEG_CONTROLLER_GIT_PATH=str(self.repository / ".git"),
            TEG_OTA_TRIAL_S=str(TRIAL_S),
            LOG_LEVEL="DEBUG",
            **environment,
        )

    def provide(self, version: str) -> None:
        """As the reference gateway leaves it: an image without our label, and the file that names the version."""
        (self.gateway.data_path / "last_launched_controller_version.txt").write_text(version)
        context = self.directory / "provided"
        write_version(context, version, BEHAVIOURS[version])
        make_image(self.engine, image_name(version), context)

    # --- what the operator does ------------------------------------------------------------------------------

    def assign(self, version: str) -> None:
        self.device.assign_software("controller", version)

    # --- what is seen ----------------------------------------------------------------------------------------

    def updates(self) -> list[dict[str, Any]]:
        """Each once: what is not proven stored when a connection ends is sent again, with its own time stamp."""
        told = {(ts, str(values)): values for ts, values in self.device.records() if "sw_state" in values}
        return list(told.values())

    def states(self, start: int = 0) -> list[str]:
        return [values["sw_state"] for values in self.updates()[start:]]

    def last(self) -> dict[str, Any]:
        return (self.updates() or [{"sw_state": "", "current_sw_version": "", "sw_error": ""}])[-1]

    def wait_told(self, state: str, version: str, timeout_s: float = 90, after: int = 0) -> dict[str, Any]:
        """Wait until the newest report (beyond the first `after`) is `state` with `version` running."""
        wait_until(
            lambda: (
                len(self.updates()) > after
                and (self.last()["sw_state"], self.last()["current_sw_version"]) == (state, version)
            ),
            timeout_s,
            f"{state} of {version}; told so far: {self.updates()[-6:]}",
        )
        return self.last()

    def running(self) -> str | None:
        """The version in the label of the running container, None if none runs."""
        with closing_client(self.engine.client) as client:
            for container in client.containers(filters={"name": f"^/{CONTAINER_NAME}$"}):
                return str(container["Image"]).removeprefix(IMAGE_PREFIX).removesuffix(":latest")
        return None

    def container_id(self) -> str | None:
        with closing_client(self.engine.client) as client:
            for container in client.containers(filters={"name": f"^/{CONTAINER_NAME}$"}):
                return str(container["Id"])
        return None

    def wait_measured(self, version: str, timeout_s: float = 30) -> None:
        """Wait for a measurement that `version` made from now on to arrive on the server."""
        since_ms = int(time.time() * 1000)
        wait_until(
            lambda: any(
                ts >= since_ms and values.get("controller") == version for ts, values in self.device.records()[-200:]
            ),
            timeout_s,
            f"a measurement of {version}",
        )


@contextmanager
def ota_device(directory: Path, engine: Engine, provided: str = "", **environment: str) -> Iterator[OtaDevice]:
    """Its gateway runs; so does its controller where a version is `provided`."""
    with ThingsBoard(packet_log=0) as server:
        device = OtaDevice(directory, server, engine, **environment)
        if provided:
            device.provide(provided)
        with device.gateway:
            yield device


def push_image(engine: Engine, reference: str, context: Path) -> str:
    """Build `context`, push it as `reference`, forget it locally; returns its digest `sha256:…`."""
    make_image(engine, reference, context)
    with closing_client(engine.client) as client:
        digest = ""
        for line in client.push(reference, stream=True, decode=True):
            assert "error" not in line, line
            digest = line.get("aux", {}).get("Digest", digest)
        client.remove_image(reference, force=True)
    return digest


def save_image(engine: Engine, name: str, context: Path) -> bytes:
    """Build `context` and return it as `docker save | gzip` writes it; the image is forgotten locally."""
    make_image(engine, name, context)
    with closing_client(engine.client) as client:
        data = b"".join(client.get_image(name))
        client.remove_image(name, force=True)
    return gzip.compress(data, 1)
