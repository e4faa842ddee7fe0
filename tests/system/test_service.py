"""The service: its unit is sandboxed, it tells systemd how it is, and it is installed and removed as promised."""

import os
import shutil
import socket
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.engine import base_archive
from tests.support.packaging import needs, wheels
from tests.support.running import CONSUMER, PROJECT, ControllerInbox, RunningGateway, message, wait_until

UNIT = PROJECT / "deploy" / "teg.service"
MAX_EXPOSURE = "20"  #: tenths: 2.0


__all__ = ["wheels"]  # a fixture


# --- the unit ----------------------------------------------------------------------------------------------


def exposure(unit: Path) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", "security", "--offline=yes", f"--threshold={MAX_EXPOSURE}", "--no-pager", str(unit)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_the_unit_is_sandboxed(tmp_path: Path) -> None:
    needs("systemd-analyze")
    shown = exposure(UNIT)
    assert shown.returncode == 0, shown.stdout[-300:]
    loose = tmp_path / "teg.service"
    loose.write_text("\n".join(line for line in UNIT.read_text().splitlines() if "SystemCallFilter" not in line))
    assert exposure(loose).returncode != 0, "the measure measures"


def test_the_unit_is_understood(tmp_path: Path) -> None:
    needs("systemd-analyze")
    unit = tmp_path / "teg.service"
    unit.write_text(UNIT.read_text().replace("/opt/teg/current/bin/teg run", "/bin/true"))
    shown = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True)
    assert shown.stderr == ""


# --- what systemd hears ------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[ThingsBoard]:
    with ThingsBoard() as server:
        server.add_device("pi", token="T1")
        yield server


def test_systemd_hears_ready_alive_and_stopping(tmp_path: Path, server: ThingsBoard) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0teg-test-{os.getpid()}")
        manager.settimeout(30)
        gateway = RunningGateway(tmp_path, server.host, server.port, "T1", NOTIFY_SOCKET=f"@teg-test-{os.getpid()}")
        with gateway:
            assert {manager.recv(100), manager.recv(100)} == {b"READY=1", b"WATCHDOG=1"}
            assert gateway.stop() == 0
        assert manager.recv(100) == b"STOPPING=1"


def test_in_the_journal_lines_have_a_priority_and_no_time_of_their_own(tmp_path: Path, server: ThingsBoard) -> None:
    """systemd names the stream that it reads; lines that go anywhere else are as always."""
    gateway = RunningGateway(tmp_path, server.host, server.port, "T1")
    with gateway.log_path.open("ab") as log:
        found = os.fstat(log.fileno())
        gateway.environment["JOURNAL_STREAM"] = f"{found.st_dev}:{found.st_ino}"
    with gateway:
        server.device("pi").wait_connected(30)
        assert gateway.stop() == 0
    lines = gateway.log().splitlines()
    assert "<4>gateway: TB_TLS=off: the access token and all data go over the network in the clear" in lines
    assert all(line[:3] in ("<3>", "<4>", "<6>") for line in lines)


def test_as_the_unit_runs_it_what_root_wrote_is_read_and_emptied(tmp_path: Path, server: ThingsBoard) -> None:
    """An ordinary user with CAP_DAC_OVERRIDE alone; the controller's container is root and SQLite makes 0644 files."""
    needs("setpriv")
    if os.geteuid() != 0:
        pytest.skip("to become another user needs root")
    gateway = RunningGateway(tmp_path, server.host, server.port, "T1")
    for path in (gateway.data_path, gateway.controller_path, gateway.token_path):
        os.chown(path, 65534, 65534)
    right = "+dac_override"
    service = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]
    service += [f"--inh-caps=-all,{right}", f"--ambient-caps=-all,{right}", f"--bounding-set=-all,{right}"]
    with closing(ControllerInbox(gateway.inbox_path)) as inbox:
        inbox.insert_many(message(number) for number in range(1, 4))
        assert gateway.inbox_path.stat().st_uid == 0
        with gateway.log_path.open("ab") as log:
            command = [*service, str(CONSUMER), "gateway.huey"]
            process = subprocess.Popen(command, cwd=PROJECT, env=gateway.environment, stdout=log, stderr=log)
        try:
            server.device("pi").wait_for(lambda device: device.distinct >= 3, 60, "the three records")
            wait_until(lambda: inbox.count() == 0, 30, "the inbox is empty")
            process.terminate()
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()
            print(gateway.log()[-3000:])


def test_the_exit_status_is_the_one_that_was_meant_although_the_log_cannot_be_written(
    tmp_path: Path, server: ThingsBoard
) -> None:
    """Its output is a file on a full disk; the kernel has one that is always full."""
    gateway = RunningGateway(tmp_path, server.host, server.port, "T1")
    gateway.log_path = Path("/dev/full")
    gateway.start()
    server.device("pi").wait_connected(30)
    assert gateway.stop() == 0
    gateway.environment["TB_PORT"] = "none"
    gateway.start()
    assert gateway.wait_exit() == 1


# --- installing --------------------------------------------------------------------------------------------


class Machine:
    """A Debian in a directory: Python, no network, no systemd."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, *command: str, user: str = "root", **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["unshare", "--net", "chroot", f"--userspec={user}:{user}", str(self.root), *command],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", **environment},
            capture_output=True,
            text=True,
            timeout=300,
        )

    def ok(self, *command: str, user: str = "root") -> str:
        done = self.run(*command, user=user)
        assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    def path(self, name: str) -> Path:
        return self.root / name.lstrip("/")

    def release(self) -> str:
        return str(self.path("/opt/teg/current").readlink())


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    for program in ("debootstrap", "dpkg-deb", "unshare"):
        needs(program)
    if os.geteuid() != 0:
        pytest.skip("a chroot needs root")
    root = tmp_path / "machine"
    root.mkdir()
    with tarfile.open(base_archive()) as archive:
        archive.extractall(root, filter="fully_trusted")
    (root / "dev").mkdir(exist_ok=True)
    for device in ("null", "urandom"):
        (root / "dev" / device).touch()
        subprocess.run(["mount", "--bind", f"/dev/{device}", root / "dev" / device], check=True)
    subprocess.run(["mount", "-t", "proc", "proc", root / "proc"], check=True)
    try:
        yield Machine(root)
    finally:
        for place in ("dev/null", "dev/urandom", "proc"):
            subprocess.run(["umount", root / place], check=True)


def build_deb(wheels: Path, out: Path) -> Path:
    environment = {**os.environ, "TEG_WHEELS": str(wheels)}
    done = subprocess.run(["deploy/make-deb", out], cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def test_the_package_is_installed_runs_upgrades_goes_back_and_is_removed(
    machine: Machine, wheels: Path, tmp_path: Path, server: ThingsBoard
) -> None:
    shutil.copy(build_deb(wheels, tmp_path), machine.path("/teg.deb"))
    said = machine.ok("dpkg", "-i", "/teg.deb")
    assert "set TB_HOST and TB_PORT in /etc/teg/teg.env" in said
    _check_places(machine)
    _check_it_runs(machine, server)

    first = machine.release()
    settings = machine.path("/etc/teg/teg.env").read_text()
    machine.ok("dpkg", "-i", "/teg.deb")
    second = machine.release()
    assert second != first
    assert machine.path("/etc/teg/teg.env").read_text() == settings, "an upgrade keeps the settings"
    machine.ok("/usr/share/teg/setup-service", "--back")
    assert machine.release() == first
    machine.ok("teg", "--version")
    machine.ok("/usr/share/teg/setup-service", "--back")
    assert machine.release() == second, "and forth again"

    machine.ok("dpkg", "-r", "teg-gateway")
    assert not machine.path("/opt/teg").exists()
    assert machine.path("/var/lib/teg/gateway.db").exists(), "removing leaves the data"
    assert machine.path("/etc/teg/teg.env").exists()
    machine.ok("dpkg", "-P", "teg-gateway")
    assert not machine.path("/var/lib/teg").exists()
    assert not machine.path("/etc/teg").exists()


def _check_places(machine: Machine) -> None:
    env, data = machine.path("/etc/teg/teg.env").stat(), machine.path("/var/lib/teg").stat()
    uid, gid = (int(machine.ok("id", option, "teg")) for option in ("-u", "-g"))
    assert (env.st_mode & 0o777, env.st_uid, env.st_gid) == (0o640, 0, gid)
    assert (data.st_mode & 0o777, data.st_uid, data.st_gid) == (0o700, uid, gid)
    for name in ("controller", "controller-logs"):
        made = machine.path(f"/var/lib/teg/{name}").stat()
        assert (made.st_mode & 0o7777, made.st_uid, made.st_gid) == (0o2770, uid, gid)
    wants = machine.path("/etc/systemd/system/multi-user.target.wants/teg.service")
    assert machine.path(str(wants.readlink())).exists(), "enabled"
    told = machine.run("teg", "check")
    assert "✗ settings: TB_HOST is not set" in told.stdout, told


def _check_it_runs(machine: Machine, server: ThingsBoard) -> None:
    """As the unit would run it, on this machine's network, with the settings of /etc/teg."""
    with machine.path("/etc/teg/teg.env").open("a") as env:
        env.write(f"TB_HOST={server.host}\nTB_PORT={server.port}\nTB_TLS=off\nTEG_CONTROLLER_RUNTIME=none\n")
    token = machine.path("/var/lib/teg/tb_access_token")
    token.write_text("T1")
    for command in (
        ("chown", "teg:teg", "/var/lib/teg/tb_access_token"),
        ("chmod", "600", "/var/lib/teg/tb_access_token"),
    ):
        machine.ok(*command)
    with closing(ControllerInbox(machine.path("/var/lib/teg/controller/communication_queue.db"))) as inbox:
        inbox.insert_many(message(number) for number in range(1, 4))
    machine.ok("sh", "-c", "chown -R teg:teg /var/lib/teg/controller")
    run = ["chroot", "--userspec=teg:teg", str(machine.root), "/usr/bin/teg", "run"]
    process = subprocess.Popen(run, env={"PATH": "/usr/sbin:/usr/bin:/bin"}, stderr=subprocess.PIPE, text=True)
    try:
        server.device("pi").wait_for(lambda device: device.distinct >= 3, 60, "the three records")
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        print(process.communicate()[1][-3000:])


def test_install_from_an_unpacked_release_and_uninstall(machine: Machine, wheels: Path, server: ThingsBoard) -> None:
    release = machine.path("/release")
    for name in ("deploy", "install", ".env.example"):
        source = PROJECT / name
        shutil.copytree(source, release / name) if source.is_dir() else shutil.copy(source, release / name)
    shutil.copytree(wheels, release / "wheels")
    assert "sudo teg check" in machine.ok("/release/install")
    assert machine.path("/etc/systemd/system/teg.service").read_text() == UNIT.read_text()
    machine.ok("/usr/local/bin/teg", "--version")
    _walk_through_the_readme(machine, server)
    first = machine.release()
    machine.ok("/release/install")
    machine.ok("/release/install", "--back")
    assert machine.release() == first
    machine.ok("/usr/local/bin/teg", "uninstall", "--yes")
    assert not machine.path("/opt/teg").exists()
    assert not machine.path("/etc/systemd/system/teg.service").exists()
    assert machine.path("/etc/teg/teg.env").exists()


def _typed(machine: Machine, *command: str, typed: str = "", user: str = "root") -> subprocess.CompletedProcess[str]:
    """As a person types it on this machine, which has the network of the server here."""
    return subprocess.run(
        ["chroot", f"--userspec={user}:{user}", str(machine.root), *command],
        env={"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
        input=typed,
        capture_output=True,
        text=True,
        timeout=120,
    )


def _walk_through_the_readme(machine: Machine, server: ThingsBoard) -> None:
    """After the installation: init, check, what the unit runs, the example controller, status; data on the server."""
    answers = f"{server.host}\nn\n{server.port}\ntoken\nT1\n"
    done = _typed(machine, "teg", "init", typed=answers)
    assert "wrote /etc/teg/teg.env" in done.stdout, done.stdout + done.stderr
    assert "✓ access token: the server takes it" in done.stdout
    with machine.path("/etc/teg/teg.env").open("a") as settings:
        settings.write("TEG_CONTROLLER_RUNTIME=none\n")  # no Docker in this directory
    check = _typed(machine, "teg", "check").stdout
    assert [line for line in check.splitlines() if line.startswith("✗")] == [
        line for line in check.splitlines() if line.startswith("✗ inbox: ")
    ], "that there is no inbox yet is right"
    unit = machine.path("/etc/systemd/system/teg.service").read_text()
    (command,) = (line.removeprefix("ExecStart=") for line in unit.splitlines() if line.startswith("ExecStart="))
    as_teg = ["chroot", "--userspec=teg:teg", str(machine.root)]
    inbox = "/var/lib/teg/controller/communication_queue.db"
    environment = {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "STATE_DIRECTORY": "/var/lib/teg"}
    processes = [
        subprocess.Popen([*as_teg, *command.split()], env=environment, stderr=subprocess.DEVNULL),
        subprocess.Popen(
            [*as_teg, "teg", "sim", "controller", "--interval", "0.2", "--inbox", inbox],
            env=environment,
            stdout=subprocess.DEVNULL,
        ),
    ]
    try:
        server.device("pi").wait_for(lambda device: device.latest("load_1m") is not None, 60, "the first value")
        assert "wrote" not in _typed(machine, "teg", "send", "hello=1").stderr
        server.device("pi").wait_for(lambda device: device.latest("hello") == 1, 30, "what was sent by hand")
        status = _typed(machine, "teg", "status")
        assert status.returncode == 0, status.stdout
        assert "server       connected since" in status.stdout
        for process in reversed(processes):
            process.terminate()
            assert process.wait(40) == 0
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_a_version_that_does_not_start_changes_nothing(machine: Machine, wheels: Path, tmp_path: Path) -> None:
    release = machine.path("/release")
    shutil.copytree(PROJECT / "deploy", release / "deploy")
    for name in ("install", ".env.example"):
        shutil.copy(PROJECT / name, release / name)
    shutil.copytree(wheels, release / "wheels")
    machine.ok("/release/install")
    before = machine.release()
    next((release / "wheels").glob("click-*")).unlink()
    assert machine.run("/release/install").returncode != 0
    assert machine.release() == before
    assert [path.name for path in machine.path("/opt/teg/releases").iterdir()] == [Path(before).name]
