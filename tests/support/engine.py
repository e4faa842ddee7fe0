"""A real Docker Engine for the tests: one of our own, in a directory and a network of its own, with a base image.

`engine` is one engine a process of the run, `clean_engine` the same without anything of ours in it. Engines do not
meet: each has its own containers, bridge and packet filter, and leaves those of the machine alone. Where no engine can
run, tests that ask for one are skipped; with CI=true they fail.
"""

import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest
from docker.errors import APIError, DockerException, NotFound

from teg.adapters.docker_engine.client import EngineClient
from teg.domain.supervision.runtime import CONTAINER_NAME, IMAGE_PREFIX
from tests.support import schedule
from tests.support.running import wait_until

BASE_IMAGE = "teg-test-base:1"
SYSTEM_SOCKET = "unix:///var/run/docker.sock"
_LEFT_OUT = (
    "dev",
    "usr/share/doc",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/zoneinfo",
    "var/cache",
    "var/lib/apt",
)


class Engine:
    """`host` answers while it is up. Only an engine that we started ourselves is `owned` and may be stopped."""

    def __init__(self, host: str, directory: Path | None) -> None:
        self.host = host
        self.directory = directory
        self.prefix: list[str] = []  #: what becomes dockerd
        self.options: list[str] = []
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def owned(self) -> bool:
        return self.directory is not None

    @property
    def client(self) -> Any:
        return EngineClient(self.host, 60)

    def inside(self) -> list[str]:
        """What to put before a command to run it in the engine's network."""
        return ["nsenter", f"--net={self.directory}/network", "--"] if self.owned else []

    def start(self) -> None:
        assert self.directory is not None
        if self.process is not None:
            return
        self._make_network(self.directory / "network")
        log = (self.directory / "dockerd.log").open("ab")
        with log:
            self.process = subprocess.Popen(
                [
                    *self.inside(),
                    *self.prefix,
                    "dockerd",
                    *self.options,
                    *("--data-root", self.directory / "data", "--exec-root", self.directory / "exec"),
                    *("-H", self.host, "-p", self.directory / "docker.pid"),
                ],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self.answers, 60, "the Docker Engine's answer")

    def _make_network(self, network: Path) -> None:
        """Held by a mount: it outlives the engine, as a machine's network does."""
        if not network.exists():
            network.touch()
            subprocess.run(["unshare", f"--net={network}", "ip", "link", "set", "lo", "up"], check=True, timeout=20)

    def answers(self) -> bool:
        assert self.process is None or self.process.poll() is None, self.log()[-2000:]
        scheme, _, path = self.host.partition("://")
        try:
            if scheme == "unix":
                with socket.socket(socket.AF_UNIX) as probe:  # docker-py leaves its own open when nobody listens
                    probe.connect(path)
            with closing_client(self.client) as client:
                return bool(client.ping())
        except (DockerException, OSError):
            return False

    def stop(self, with_signal: signal.Signals = signal.SIGTERM) -> None:
        """Gracefully, its containers with it; SIGKILL leaves them running, as a crash of the engine does."""
        if self.process is None:
            return
        self.process.send_signal(with_signal)
        self.process.wait(90)
        self.process = None
        wait_until(lambda: not self._containerd_runs(), 30, "the end of containerd: a new engine would rely on it")
        assert self.directory is not None
        # Where process 1 does not reap, its zombie would pass for a containerd that runs.
        (self.directory / "exec" / "containerd" / "containerd.pid").unlink(missing_ok=True)

    def log(self) -> str:
        assert self.directory is not None
        return (self.directory / "dockerd.log").read_text(errors="replace")

    def _containerd_runs(self) -> bool:
        return any(Path(arguments[0]).name == "containerd" for arguments in self._processes().values())

    def _processes(self) -> dict[int, list[str]]:
        """What runs with our directory among its arguments: the engine, containerd, one shim a container."""
        found = {}
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                arguments = path.read_text(errors="replace").split("\0")
                if any(argument.startswith(f"{self.directory}/") for argument in arguments):
                    found[int(path.parent.name)] = arguments
        return found

    def remove(self) -> None:
        assert self.directory is not None
        if self.process is not None and self.process.poll() is None and self.answers():
            with closing_client(self.client) as client:
                for container in client.containers():
                    with suppress(APIError):  # it ended by itself since the list was made
                        client.kill(container["Id"])
        self.stop()
        for pid in self._processes():  # shims of containers that outlived a killed engine
            with suppress(OSError):
                for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                    os.kill(int(child), signal.SIGKILL)
                os.kill(pid, signal.SIGKILL)
        for mount in reversed(Path("/proc/mounts").read_text().splitlines()):
            if mount.split()[1].startswith(f"{self.directory}/"):
                subprocess.run(["umount", "-l", mount.split()[1]], check=False)
        shutil.rmtree(self.directory, ignore_errors=True)

    def import_base(self) -> None:
        with closing_client(self.client) as client:
            if not client.images(BASE_IMAGE):
                repository, _, tag = BASE_IMAGE.partition(":")
                answer = client.import_image_from_file(str(base_archive()), repository=repository, tag=tag)
                assert "error" not in answer, answer

    def clean(self) -> None:
        """Remove what carries our names; nothing else."""
        with closing_client(self.client) as client:
            with suppress(NotFound):
                client.remove_container(CONTAINER_NAME, force=True, v=True)
            for image in client.images(filters={"reference": f"{IMAGE_PREFIX}*"}):
                for name in image["RepoTags"] or []:
                    if name.startswith(IMAGE_PREFIX):
                        client.remove_image(name, force=True)

    def state(self, container: str = CONTAINER_NAME) -> dict[str, Any]:
        with closing_client(self.client) as client:
            return dict(client.inspect_container(container)["State"])


@contextmanager
def closing_client(client: Any) -> Iterator[Any]:
    try:
        yield client
    finally:
        client.close()


def cache_path() -> Path:
    path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "teg-tests"
    path.mkdir(parents=True, exist_ok=True)
    return path


def base_archive() -> Path:
    """A minimal Debian with python3, made once a machine (about half a minute) and kept outside the tree."""
    archive = cache_path() / "bookworm-python3.tar"
    with (cache_path() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not archive.exists():
            _make_base(archive)
    return archive


def _make_base(archive: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="teg-base-") as directory:
        root, unfinished = Path(directory) / "root", archive.with_suffix(".new")
        subprocess.run(
            ["debootstrap", "--variant=minbase", "--include=python3", "bookworm", root], check=True, timeout=600
        )
        left_out = [f"--exclude=./{path}" for path in _LEFT_OUT]
        subprocess.run(["tar", "-C", root, *left_out, "-cf", unfinished, "."], check=True, timeout=300)
        unfinished.rename(archive)


def unavailable(reason: str) -> NoReturn:
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"no Docker Engine for the tests: {reason}")
    pytest.skip(f"no Docker Engine for the tests: {reason}")


@contextmanager
def own_engine(directory: Path, prefix: Sequence[str] = (), options: Sequence[str] = ()) -> Iterator[Engine]:
    """`directory` has to be short, for the paths of the engine's sockets."""
    for program in ("dockerd", "debootstrap", "ip"):
        if shutil.which(program) is None:
            unavailable(f"{program} is not installed")
    if os.geteuid() != 0:
        unavailable("an engine of our own needs root")
    found = Engine(f"unix://{directory}/docker.sock", directory)
    found.prefix, found.options = list(prefix), list(options)
    try:
        found.start()
        found.import_base()
        yield found
    finally:
        found.remove()


def _running_engine() -> Engine | None:
    """The machine's own engine, unless it runs a controller: tests must not touch that one."""
    found = Engine(os.environ.get("DOCKER_HOST", SYSTEM_SOCKET), None)
    if not found.answers():
        return None
    with closing_client(found.client) as client:
        try:
            client.inspect_container(CONTAINER_NAME)
        except NotFound:
            return found
    return None


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    if os.geteuid() != 0 and (found := _running_engine()) is not None:
        found.import_base()
        yield found
        return
    with own_engine(tmp_path_factory.mktemp("docker")) as own:
        yield own


@pytest.fixture
def clean_engine(engine: Engine, request: pytest.FixtureRequest) -> Iterator[Engine]:
    assert schedule.shares_an_engine(request.node.nodeid), "tests/support/schedule.py has to know this test"
    if engine.owned:
        engine.start()
    engine.clean()
    yield engine
    if engine.owned:
        engine.start()
    engine.clean()


@pytest.fixture
def engine_to_stop(clean_engine: Engine) -> Engine:
    """The same, where it is ours to stop."""
    if not clean_engine.owned:
        unavailable("an engine of our own needs root")
    return clean_engine


def write_context(directory: Path, script: str, dockerfile: str = "") -> Path:
    """A build context whose controller is the Python program `script`."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "main.py").write_text(script)
    default = f'FROM {BASE_IMAGE}\nCOPY main.py /main.py\nCMD ["python3", "-u", "/main.py"]\n'
    (directory / "Dockerfile").write_text(dockerfile or default)
    return directory


def make_image(engine: Engine, name: str, context: Path, labels: dict[str, str] | None = None) -> str:
    """Build `context` as `name`, as somebody else would; returns the image's id."""
    with closing_client(engine.client) as client:
        for line in client.build(path=str(context), tag=name, rm=True, labels=labels or {}, decode=True):
            assert "error" not in line, json.dumps(line)
        return str(client.inspect_image(name)["Id"])


def make_container(engine: Engine, name: str, image: str, **options: Any) -> str:
    with closing_client(engine.client) as client, suppress(APIError):
        client.remove_container(name, force=True)
    with closing_client(engine.client) as client:
        return str(client.create_container(image, name=name, **options)["Id"])


@contextmanager
def running_registry(directory: Path, engine: Engine) -> Iterator[str]:
    """A real registry in the engine's network; yields its `host:port`."""
    directory.mkdir(parents=True, exist_ok=True)
    configuration, log = directory / "registry.yml", directory / "registry.log"
    storage = f"storage:\n  filesystem:\n    rootdirectory: {directory / 'images'}\n"
    configuration.write_text(f"version: 0.1\n{storage}http:\n  addr: 127.0.0.1:0\n")
    with log.open("wb") as output:
        command = [*engine.inside(), "docker-registry", "serve", str(configuration)]
        process = subprocess.Popen(command, stdout=output, stderr=output)

    def address() -> str | None:
        assert process.poll() is None, log.read_text()
        found = re.search(r"listening on (127\.0\.0\.1:\d+)", log.read_text())
        return found and found.group(1)

    try:
        wait_until(address, 20, "the registry")
        yield str(address())
    finally:
        process.terminate()
        process.wait(20)


def save(engine: Engine, path: Path, *names: str) -> Path:
    """`docker save` of `names`, as an operator makes a package."""
    environment = {"DOCKER_HOST": engine.host, "PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": str(path.parent)}
    subprocess.run(["docker", "save", "-o", path, *names], check=True, env=environment, timeout=120)
    return path
