"""Where everything of one demo lies: one directory, gone at the end unless something failed."""

import contextlib
import fcntl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TOKEN = "demo-token"


@dataclass(frozen=True, slots=True)
class Places:
    directory: Path

    @property
    def controller_data(self) -> Path:
        return self.directory / "controller"

    @property
    def controller_logs(self) -> Path:
        return self.directory / "controller-logs"

    @property
    def inbox(self) -> Path:
        return self.controller_data / "communication_queue.db"

    @property
    def gateway_data(self) -> Path:
        return self.directory / "gateway"

    @property
    def gateway_db(self) -> Path:
        return self.gateway_data / "gateway.db"

    @property
    def queue(self) -> Path:
        return self.gateway_data / "huey_data"

    @property
    def logs(self) -> Path:
        return self.directory / "logs"

    @property
    def repository(self) -> Path:
        """The controller's Git repository."""
        return self.directory / "controller-repository"

    @property
    def program(self) -> Path:
        """The folder of the repository that holds the controller's program."""
        return self.repository / "docker"

    @property
    def account_file(self) -> Path:
        """Where the controller counts what it has recorded."""
        return self.directory / "recorded.json"

    @property
    def lock_file(self) -> Path:
        """Locked while the demo runs, however it ends; its controllers wait for that."""
        return self.directory / "running.lock"

    @property
    def token_file(self) -> Path:
        return self.gateway_data / "tb_access_token"

    @property
    def running_controller(self) -> Path:
        """Where the gateway notes which process its controller is."""
        return self.gateway_data / "controller_process" / "running.json"

    def create(self) -> None:
        for path in (self.controller_data, self.controller_logs, self.gateway_data, self.logs):
            path.mkdir(mode=0o700)
        self.token_file.touch(mode=0o600)
        self.token_file.write_text(TOKEN)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        with self.lock_file.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
