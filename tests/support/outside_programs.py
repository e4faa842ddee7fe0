"""Real programs on the way to a server: a proxy, a broker, a web server's WebSocket; on free ports of 127.0.0.1."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from teg.simulator.thingsboard.tls import ServerTls
from tests.support.running import wait_until


def program(name: str) -> str:
    """Its path; a laptop without it skips, CI fails."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{name} is not installed; CI must have it (tests/install-system-packages)")
        pytest.skip(f"{name} is not installed (tests/install-system-packages)")
    return found


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        return int(free.getsockname()[1])


@contextmanager
def running_program(arguments: list[str], port: int, log: Path) -> Iterator[None]:
    """Until it is listened on `port`, and ended at the end."""
    with log.open("wb") as output:
        running = subprocess.Popen(arguments, stdout=output, stderr=output, stdin=subprocess.DEVNULL)

    def listens() -> bool:
        assert running.poll() is None, log.read_text()
        with closing(socket.socket()) as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(listens, 30, f"{arguments[0]} listens")
        yield
    finally:
        running.terminate()
        running.wait(20)


@dataclass(frozen=True)
class TinyProxy:
    """An HTTP proxy that wants a user and a password, where it was given them."""

    port: int
    log_path: Path
    login: str = ""

    @property
    def url(self) -> str:
        return f"http://{self.login}{'@' if self.login else ''}127.0.0.1:{self.port}"

    def connects(self) -> list[str]:
        """What was asked of it by CONNECT, in order: host:port."""
        lines = [line for line in self.log_path.read_text().splitlines() if ": CONNECT " in line]
        return [line.split(": CONNECT ")[1].split()[0] for line in lines]


@contextmanager
def tinyproxy(folder: Path, login: str = "", ports: tuple[int, ...] = ()) -> Iterator[TinyProxy]:
    """`login`: user:password; `ports`: the only ones that CONNECT may go to, none: all."""
    port, log = free_port(), folder / "tinyproxy.log"
    lines = [f"Port {port}", "Listen 127.0.0.1", "MaxClients 60", "Timeout 600", "LogLevel Info"]
    lines += [f"BasicAuth {login.replace(':', ' ')}"] if login else []
    lines += [f"ConnectPort {allowed}" for allowed in ports]
    config = folder / "tinyproxy.conf"
    config.write_text("\n".join(lines) + "\n")
    with running_program([program("tinyproxy"), "-d", "-c", str(config)], port, log):
        yield TinyProxy(port, log, login)


@contextmanager
def websockify(folder: Path, target_port: int, tls: ServerTls | None = None) -> Iterator[int]:
    """A WebSocket on a port, with TLS if there is a certificate, that leads to plain TCP on `target_port`."""
    port = free_port()
    secured = ["--ssl-only", f"--cert={tls.certificate_file}", f"--key={tls.key_file}"] if tls is not None else []
    arguments = [program("websockify"), *secured, f"127.0.0.1:{port}", f"127.0.0.1:{target_port}"]
    with running_program(arguments, port, folder / "websockify.log"):
        yield port


@contextmanager
def mosquitto(folder: Path, *lines: str) -> Iterator[int]:
    """A broker with one listener; `lines` of its configuration follow that."""
    port, config = free_port(), folder / "mosquitto.conf"
    config.write_text("\n".join([f"listener {port} 127.0.0.1", *(lines or ("allow_anonymous true",))]) + "\n")
    with running_program([program("mosquitto"), "-v", "-c", str(config)], port, folder / "mosquitto.log"):
        yield port
