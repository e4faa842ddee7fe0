"""A gateway, its controller's inbox, its link and its server in one directory that nobody else uses."""

import shutil
import signal
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from teg.simulator.demo.children import Child
from teg.simulator.demo.environment import GATEWAY_COMMAND, ROOT, neutral_environment
from teg.simulator.thingsboard.server import ThingsBoard
from teg.simulator.torture.books import Account, Producer, take_account
from teg.simulator.torture.link import FaultyLink

TOKEN = "torture-token"
#: How long a start may take before its storage is open.
START_S = 60.0


class TortureSite:
    """`start`, `kill`, `stop`, `pause` of a real `huey_consumer`; `lock` of its databases by another program."""

    def __init__(self, directory: Path, server: ThingsBoard, link: FaultyLink, environment: Mapping[str, str]) -> None:
        self.directory = directory
        self.data, self.controller = directory / "gateway", directory / "controller"
        for path in (self.data, self.controller):
            path.mkdir(mode=0o700)
        self.database = self.data / "gateway.db"
        self.server, self.link = server, link
        self.device = server.add_device("torture", token=TOKEN)
        self.inbox = self.controller / "communication_queue.db"
        self.producer = Producer(self.inbox, directory / "recorded")
        self.child: Child | None = None
        self._environment = {**environment, **self._settings()}

    def _settings(self) -> dict[str, str]:
        token = self.data / "tb_access_token"
        token.touch(mode=0o600)
        token.write_text(TOKEN)
        return {
            "PYTHONPATH": str(ROOT),
            "TB_HOST": self.link.host,
            "TB_PORT": str(self.link.port),
            "TB_TLS": "off",
            "THINGSBOARD_ACCESS_TOKEN": str(token),
            "TEG_DATA_PATH": str(self.data),
            "TEG_QUEUE_URL": f"sqlite://{self.data}/huey_data/huey.db",
            "TEG_CONTROLLER_DATA_PATH": str(self.controller),
            "TEG_CONTROLLER_LOGS_PATH": str(self.directory / "controller-logs"),
            "TEG_CONTROLLER_RUNTIME": "none",
        }

    @property
    def running(self) -> Child:
        assert self.child is not None, "the gateway was started"
        return self.child

    def start(self) -> None:
        """Returns at once."""
        self.child = Child("gateway", GATEWAY_COMMAND, self._environment, self.directory, ROOT)

    def wait_up(self) -> None:
        """It holds its lock: before that, SIGTERM still means what the kernel says."""
        deadline_s = time.monotonic() + START_S
        lock = self.data / "gateway.lock"
        while not any(_leads_to(entry, lock) for entry in Path(f"/proc/{self.running.pid}/fd").iterdir()):
            self.running.check()
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"the gateway is not up within {START_S:.0f} s:\n{self.running.last_lines()}")
            time.sleep(0.05)

    def kill(self) -> None:
        """kill -9, and the next life."""
        self.running.kill()
        self.running.stop()
        self.start()

    def stop(self) -> None:
        """SIGTERM, and the next life."""
        self.wait_up()
        if (status := self.running.stop()) != 0:
            raise RuntimeError(f"the gateway ended with status {status} after SIGTERM:\n{self.running.last_lines()}")
        self.start()

    def pause(self, seconds: float) -> None:
        """SIGSTOP, SIGCONT."""
        self.running.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self.running.send_signal(signal.SIGCONT)

    def remove_queue(self) -> None:
        shutil.rmtree(self.data / "huey_data", ignore_errors=True)

    @contextmanager
    def locked(self, path: Path) -> Iterator[None]:
        """The write lock of a database is held by somebody else; nothing if it is not to be had."""
        with ExitStack() as stack:
            if path.exists() and path.stat().st_size:
                with suppress(sqlite3.OperationalError):
                    other = sqlite3.connect(path, isolation_level=None, timeout=2.0, check_same_thread=False)
                    stack.callback(other.close)
                    other.execute("BEGIN IMMEDIATE")
            yield

    def account(self) -> Account:
        return take_account(self.producer, self.device, self.database)

    def close(self) -> None:
        if self.child is not None:
            self.child.kill()
            self.child.stop()
        self.producer.close()


def _leads_to(entry: Path, path: Path) -> bool:
    with suppress(OSError):
        return entry.readlink() == path
    return False


@contextmanager
def torture_site(directory: Path, environment: Mapping[str, str], env_file: Path) -> Iterator[TortureSite]:
    """Everything of it lies in `directory`; nothing of what the user has set for a real gateway is taken over."""
    with ThingsBoard(packet_log=0) as server, FaultyLink((server.host, server.port)) as link:
        neutral = neutral_environment(environment, env_file)
        site = TortureSite(directory, server, link, {**neutral, "NOTIFY_SOCKET": "", "STATE_DIRECTORY": ""})
        try:
            yield site
        finally:
            site.close()
