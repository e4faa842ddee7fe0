"""A device whose controller a real gateway supervises in a real Docker Engine."""

import time
from pathlib import Path
from typing import Any

import orjson
from docker.errors import APIError

from teg.domain.supervision.runtime import CONTAINER_NAME, image_name
from tests.support.engine import Engine, closing_client, make_image, write_context
from tests.support.running import CLOSED_PORT, RunningGateway, wait_until

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
