"""What an installation puts on a machine, and that the installed gateway leaves its library alone: code, no data."""

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.running import PROJECT, ControllerInbox, RunningGateway, message, wait_until

ON_TOP = {"gateway.py", "producers", "tasks", "teg", "controller_client"}
LIBRARIES = "libraries.pth"
METADATA = re.compile(r"teg_gateway-[^/]+\.dist-info")
CHANGES = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|^(mk|rm|un|re|link|symlink|ch|fch|trunc|ut)")
CALL = re.compile(r"^\d+ +(?P<call>\w+\(.*)$")
PATH = re.compile(r'(?:(?P<folder><[^>]*>), )?"(?P<name>[^"]*)"')


@dataclass(frozen=True)
class Installation:
    """An environment of its own with nothing but the wheel in it, and the way to the libraries of the tests' own."""

    directory: Path
    wheel: Path

    @property
    def python(self) -> Path:
        return self.directory / "bin" / "python"

    @property
    def site_packages(self) -> Path:
        [found] = self.directory.glob("lib/python*/site-packages")
        return found

    def environment(self, **variables: str) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], **variables}


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    directory = tmp_path_factory.mktemp("wheel")
    source = directory / "source"
    shutil.copytree(
        PROJECT, source, ignore=shutil.ignore_patterns(".*", "build", "dist", "tmp*", "*.db", "__pycache__")
    )
    left_over = source / "build" / "lib" / "domain"  # of an older version that was built here
    left_over.mkdir(parents=True)
    (left_over / "__init__.py").touch()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build: list[str | Path] = ["wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", directory]
    subprocess.run([*pip, *build, source], check=True, timeout=120)
    shutil.rmtree(source)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory / "venv"], check=True, timeout=60)
    [wheel] = directory.glob("*.whl")
    found = Installation(directory / "venv", wheel)
    install: list[str | Path] = ["--python", found.python, "install", "--no-deps", "--no-index", wheel]
    subprocess.run([*pip, *install], check=True, timeout=120)
    # Links in the directory that is named here are not followed, that of an editable installation among them.
    (found.site_packages / LIBRARIES).write_text(sysconfig.get_path("purelib"))
    return found


def test_it_puts_five_names_on_top_and_no_other(installation: Installation) -> None:
    found = {path.name for path in installation.site_packages.iterdir()} - {"__pycache__", LIBRARIES}
    [metadata] = filter(METADATA.fullmatch, found)
    assert found - {metadata} == ON_TOP
    assert {path.name for path in (installation.directory / "bin").iterdir() if "teg" in path.name} == {"teg"}


#: What `teg server install` brings to a ThingsBoard server.
SERVER_SIDE = {"teg/console/server_side/dashboard.json", "teg/console/server_side/device-profile.json"}
#: What the status page sends to a browser.
PAGE = {f"teg/console/page/static/{name}" for name in ("icon.svg", "index.html", "page.css", "page.js", "plots.js")}


def test_it_holds_code_and_what_marks_it_as_typed(installation: Installation) -> None:
    with zipfile.ZipFile(installation.wheel) as wheel:
        names = [name for name in wheel.namelist() if not METADATA.match(name)]
    assert {"gateway.py", "teg/settings.py", "controller_client/teg_controller.py"} < set(names)
    assert {name for name in names if not name.endswith((".py", "/py.typed"))} == SERVER_SIDE | PAGE


def test_the_operators_command_runs_without_the_checkout(installation: Installation) -> None:
    command: list[str | Path] = [installation.directory / "bin" / "teg", "--version"]
    done = subprocess.run(command, cwd="/", env=installation.environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert re.search(r"teg, version \d", done.stdout)


class InstalledGateway(RunningGateway):
    """The gateway of the installation, from `/`; every call of it that names a file is in `trace_path`."""

    def __init__(self, directory: Path, server: ThingsBoard, installation: Installation) -> None:
        super().__init__(directory, server.host, server.port, "TOKEN-1")
        self.environment |= installation.environment()
        self.trace_path = directory / "trace"
        self.python = installation.python

    def start(self, *arguments: str, target: str = "gateway.huey") -> None:
        code = "from huey.bin.huey_consumer import consumer_main; consumer_main()"
        traced: list[str | Path] = [
            "strace",
            "-f",
            "-y",
            "-qq",
            "-s",
            "4096",
            "-e",
            "trace=%file",
            "-o",
            self.trace_path,
        ]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*traced, self.python, "-c", code, target, *arguments],
                cwd="/", env=self.environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def stop(self, with_signal: signal.Signals = signal.SIGTERM, timeout_s: float = 30.0) -> int:
        assert self.process is not None
        os.killpg(self.process.pid, with_signal)  # strace ends as the program that it watched
        return self.wait_exit(timeout_s)

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def calls_in(self, library: Path) -> Iterator[tuple[str, Path]]:
        """What was done with files inside `library`: the call, and the path."""
        for line in self.trace_path.read_text(errors="replace").splitlines():
            if call := CALL.match(line):
                for folder, name in PATH.findall(call["call"]):
                    path = Path("/", folder.strip("<>"), name)
                    if path.is_relative_to(library):
                        yield call["call"], path


def state_of(library: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(library.rglob("*"))}


@pytest.mark.skipif(
    shutil.which("strace") is None and os.environ.get("CI", "").lower() != "true", reason="needs strace"
)
def test_the_gateway_neither_reads_nor_writes_data_in_its_library(installation: Installation, tmp_path: Path) -> None:
    library = installation.site_packages
    (library / ".env").write_text("TB_HOST=192.0.2.1\nTEG_RPC_RUN_COMMAND=on\n")
    before = state_of(library)
    with ThingsBoard() as server:
        device = server.add_device("pi", token="TOKEN-1")
        gateway = InstalledGateway(tmp_path, server, installation)
        inbox = ControllerInbox(gateway.inbox_path)
        inbox.insert(message(1))
        with gateway:
            wait_until(lambda: any("n" in values for _, values in device.records()), 60, "the measurement")
            assert gateway.stop(timeout_s=60) == 0
        inbox.close()
    assert state_of(library) == before
    calls = list(gateway.calls_in(library))
    assert any(path == library / "gateway.py" for _, path in calls), "the trace does not show the program"
    assert [call for call, _ in calls if CHANGES.search(call)] == []
    opened = {path for call, path in calls if call.startswith("open") and "O_DIRECTORY" not in call}
    assert [path for path in opened if not is_code(path.relative_to(library))] == []


def is_code(path: Path) -> bool:
    return path.suffix in (".py", ".pyc") or path.name == LIBRARIES or METADATA.fullmatch(path.parts[0]) is not None


def add_consumer(installation: Installation) -> None:
    """As an installation with its libraries has it."""
    consumer = installation.directory / "bin" / "huey_consumer"
    consumer.write_text(f"#!{installation.python}\nfrom huey.bin.huey_consumer import consumer_main\nconsumer_main()\n")
    consumer.chmod(0o755)


def test_the_torture_runs_without_the_checkout(installation: Installation, tmp_path: Path) -> None:
    add_consumer(installation)
    teg = installation.directory / "bin" / "teg"
    command: list[str | Path] = [teg, "torture", "--seconds", "2", "--directory", tmp_path / "card"]
    done = subprocess.run(command, cwd="/", env=installation.environment(), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^account: recorded [1-9]\d*, on the server [1-9]\d*, lost 0,", done.stdout, re.MULTILINE)
    assert list(tmp_path.iterdir()) == []


def test_the_demo_runs_without_the_checkout(installation: Installation, tmp_path: Path) -> None:
    add_consumer(installation)
    command: list[str | Path] = [installation.directory / "bin" / "teg", "demo", "--seconds", "3"]
    environment = installation.environment(TMPDIR=str(tmp_path))
    done = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^account: recorded [1-9]\d*, delivered \d+, lost 0, duplicated 0$", done.stdout, re.MULTILINE)
    assert list(tmp_path.iterdir()) == []
