"""A real Redis and a real PostgreSQL on an address of their own, killed and started again at will.

A missing program skips on a laptop and fails in CI. PostgreSQL refuses to run as root, so root starts it as `postgres`.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import pytest

from teg.simulator.thingsboard.tls import ServerTls
from tests.support.running import own_address, wait_until


class QueueServer(Protocol):
    url: str

    def start(self) -> None: ...

    def kill(self) -> None: ...

    def secure(self, directory: Path, password: str) -> None: ...


def needed(program: str, package: str) -> str:
    """The program's path; without it the test is skipped, in CI failed."""
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))
    found = shutil.which(program) or (str(installed[-1]) if installed else None)
    if found:
        return found
    if os.environ.get("CI") == "true":
        pytest.fail(f"{program} is missing: apt-get install {package}")
    pytest.skip(f"{program} is not installed (Debian package {package})")


def accepts(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((host, port)) == 0


class _Server:
    def __init__(self, scheme: str, port: int, name: str) -> None:
        self.host, self.port = own_address(), port
        self.url = f"{scheme}://{self.host}:{port}/{name}"
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.command(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        wait_until(self.ready, 30, f"{self.command()[0]} accepts connections")

    def ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"{self.command()[0]} ended with {self.process.returncode}"
        return accepts(self.host, self.port)

    def kill(self) -> None:
        """Nothing is saved, nobody is told: the process group is killed."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None
            wait_until(lambda: not accepts(self.host, self.port), 10, "the port is free again")


class RedisServer(_Server):
    """Keeps nothing on disk: started again it is empty, the worst that can happen to a queue."""

    def __init__(self) -> None:
        self._program = needed("redis-server", "redis-server")
        super().__init__("redis", 6379, "0")
        self._security: list[str] = []

    def secure(self, directory: Path, password: str) -> None:
        """Only TLS and only with the password from the next start on; the URL carries both."""
        tls = ServerTls.create(directory, names=(self.host,))
        files = ["--tls-cert-file", tls.certificate_file, "--tls-key-file", tls.key_file, "--tls-auth-clients", "no"]
        self._security = [*map(str, files), "--tls-port", str(self.port), "--requirepass", password]
        self.url = f"rediss://default:{password}@{self.host}:{self.port}/0?ssl_ca_certs={tls.ca_file}"

    def command(self) -> list[str]:
        plain_port = 0 if self._security else self.port
        options = ["--bind", self.host, "--save", "", "--appendonly", "no", *self._security]
        return [self._program, "--port", str(plain_port), *options]


class PostgresqlServer(_Server):
    def __init__(self) -> None:
        self._program = needed("postgres", "postgresql")
        self._initdb = needed("initdb", "postgresql")
        super().__init__("postgresql", 5432, "postgres?user=teg&password=none")
        # Not in pytest's directory, which `postgres` may not enter.
        self._directory = Path(tempfile.mkdtemp(prefix="teg-postgresql-"))
        self._as_postgres(["chown", "postgres", str(self._directory)], user="root")
        self._as_postgres([self._initdb, "-D", str(self._directory / "data"), "-U", "teg", "-A", "trust", "-N"])
        self._security: list[str] = []

    def secure(self, directory: Path, password: str) -> None:
        """Only TLS and only with the password from the next start on; the URL carries both."""
        tls = ServerTls.create(directory, names=(self.host,))
        for source in (tls.certificate_file, tls.key_file):
            copy = self._directory / source.name
            shutil.copy(source, copy)
            copy.chmod(0o600)
            self._as_postgres(["chown", "postgres", str(copy)], user="root")
        self._set_password(password)
        files = {"ssl_cert_file": tls.certificate_file, "ssl_key_file": tls.key_file}
        self._security = ["-c", "ssl=on"]
        for name, path in files.items():
            self._security += ["-c", f"{name}={self._directory / path.name}"]
        rules = self._directory / "pg_hba.conf"
        rules.write_text("hostssl all all 0.0.0.0/0 scram-sha-256\n")
        rules.chmod(0o644)
        self._security += ["-c", f"hba_file={rules}"]
        trust = f"sslmode=verify-full&sslrootcert={tls.ca_file}"
        self.url = f"postgresql://teg:{password}@{self.host}:{self.port}/postgres?{trust}"

    def _set_password(self, password: str) -> None:
        single = [self._program, "--single", "-D", str(self._directory / "data"), "postgres"]
        text = f"alter user teg password '{password}'\n".encode()
        subprocess.run([*self._prefix(), *single], input=text, cwd="/", check=True, capture_output=True, timeout=60)

    def _prefix(self) -> list[str]:
        return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []

    def _as_postgres(self, command: list[str], user: str = "postgres") -> None:
        if user == "postgres" or os.geteuid() == 0:
            prefix = self._prefix() if user == "postgres" else []
            subprocess.run([*prefix, *command], cwd="/", check=True, capture_output=True, timeout=120)

    def command(self) -> list[str]:
        data = str(self._directory / "data")
        options = ["-p", str(self.port), "-h", self.host, "-k", str(self._directory), "-F", *self._security]
        return [*self._prefix(), self._program, "-D", data, *options]

    def _workers(self) -> list[str]:
        data = str(self._directory / "data")
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if entry.name.isdigit() and str((entry / "cwd").readlink()) == data:
                    found.append(entry.name)
        return found

    def ready(self) -> bool:
        """It listens before it answers: only a query shows that recovery is over."""
        return super().ready() and self._answers()

    def _answers(self) -> bool:
        import psycopg

        try:
            with psycopg.connect(self.url, connect_timeout=3) as connection:
                return bool(connection.execute("select 1").fetchone() == (1,))
        except psycopg.OperationalError:
            return False

    def kill(self) -> None:
        super().kill()
        # Its workers have sessions of their own and end a moment later; until then the data are not free.
        wait_until(lambda: not self._workers(), 20, "the last worker of the killed server has ended")
        (self._directory / "data" / "postmaster.pid").unlink(missing_ok=True)

    def remove(self) -> None:
        shutil.rmtree(self._directory)
