"""What an operator sees first: each planted fault, and the first line of `teg check` or `teg status` about it.

The table in docs/troubleshooting.md comes from here; a real `teg`, real servers, real files.
"""

import datetime
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme

from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.server import ThingsBoard
from teg.simulator.thingsboard.tls import ServerTls
from tests.support import queue_libraries
from tests.support.running import CLOSED_PORT, PROJECT, ControllerInbox, RunningGateway, wait_until
from tests.support.sick_engine import sick_engine

TEG = Path(sys.executable).parent / "teg"


@dataclass
class Site:
    """A site at which everything is right; a fault changes one thing of it."""

    directory: Path
    server: ThingsBoard
    gateway: RunningGateway
    inbox: ControllerInbox
    stack: ExitStack
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def device(self) -> Device:
        return self.server.device("pi")

    def teg(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [TEG, *arguments],
            env={**self.gateway.environment, **self.environment},
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def serve(self, tls: ServerTls | None) -> None:
        """Another server in its place, in plain text or with another certificate."""
        server = self.stack.enter_context(ThingsBoard(tls=tls))
        server.add_device("pi", token="T1")
        self.environment |= {"TB_PORT": str(server.port)}

    def mount(self, place: Path, *arguments: str) -> None:
        if os.geteuid() != 0:
            pytest.skip("mounting needs root")
        subprocess.run(["mount", *arguments, place], check=True)
        self.stack.callback(lambda: subprocess.run(["umount", place], check=True))

    def start(self) -> None:
        self.stack.callback(self.gateway.kill)
        self.gateway.environment |= self.environment
        self.gateway.start()


@contextmanager
def site_in(directory: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        tls = ServerTls.create(directory / "tls")
        server = stack.enter_context(ThingsBoard(tls=tls))
        server.add_device("pi", token="T1")
        secure = {"TB_TLS": "on", "THINGSBOARD_CA_CERT": str(tls.ca_file)}
        gateway = RunningGateway(directory, "localhost", server.port, "T1", **secure)
        gateway.data_path.chmod(0o700)
        inbox = stack.enter_context(closing(ControllerInbox(gateway.inbox_path)))
        inbox.heartbeat(time.time_ns() // 1_000_000)
        yield Site(directory, server, gateway, inbox, stack)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with site_in(tmp_path) as site:
        yield site


FAULTS: dict[str, tuple[Callable[[Site], object], str]] = {}


def fault(first_line: str) -> Callable[[Callable[[Site], object]], Callable[[Site], object]]:
    """`first_line` is the beginning of it, a regular expression."""

    def note(plant: Callable[[Site], object]) -> Callable[[Site], object]:
        FAULTS[plant.__name__] = (plant, first_line)
        return plant

    return note


# --- teg check ---------------------------------------------------------------------------------------------


@fault(r"✗ access token: the server does not know this access token \(CONNACK 5\)")
def wrong_token(site: Site) -> None:
    site.gateway.token_path.write_text("ANOTHER-TOKEN")


@fault(r"✗ access token: there is no .*/token → put the device's token into .*/token, or set")
def no_token(site: Site) -> None:
    site.gateway.token_path.unlink()


@fault(r"✗ access token: token file .* does not hold one access token → put")
def two_lines_in_the_token_file(site: Site) -> None:
    site.gateway.token_path.write_text("T1\nT2\n")


@fault(
    r"✗ server encryption: the server's certificate is signed by an authority that this device does not trust → THING"
)
def wrong_ca(site: Site) -> None:
    trustme.CA().cert_pem.write_to_path(site.directory / "other.pem")
    site.environment["THINGSBOARD_CA_CERT"] = str(site.directory / "other.pem")


@fault(r"✗ server encryption: the server's certificate has expired → renew it on the server")
def expired_certificate(site: Site) -> None:
    site.serve(ServerTls.create(site.directory / "tls", expired=True))


@fault(r"✗ server encryption: the server's certificate is not valid yet → this device's clock is behind; set the clock")
def clock_behind(site: Site) -> None:
    """As seen from a device whose clock stands in 1970: everything is from the future."""
    authority, now = trustme.CA(), datetime.datetime.now(datetime.UTC)
    tomorrow, later = now + datetime.timedelta(days=1), now + datetime.timedelta(days=9)
    tls = ServerTls.create(site.directory / "tls")
    issued = authority.issue_cert("localhost", not_before=tomorrow, not_after=later)
    authority.cert_pem.write_to_path(tls.ca_file)
    issued.private_key_pem.write_to_path(tls.key_file)
    issued.cert_chain_pems[0].write_to_path(tls.certificate_file)
    site.serve(tls)


@fault(r"✗ server encryption: the server's certificate is for another name → TB_HOST has to be")
def another_name_than_in_the_certificate(site: Site) -> None:
    site.serve(ServerTls.create(site.directory / "tls", ["things.example.org"]))


@fault(r"✗ server encryption: port \d+ speaks TLS, and TB_TLS is off → set TB_TLS=on")
def plain_against_tls(site: Site) -> None:
    site.environment["TB_TLS"] = "off"


@fault(r"✗ server encryption: port \d+ speaks plain MQTT, and TB_TLS is on → use the TLS port")
def tls_against_plain(site: Site) -> None:
    site.serve(None)


@fault(r"✗ server port: localhost:\d+ cannot be reached: Connection refused → check TB_PORT")
def closed_port(site: Site) -> None:
    site.environment["TB_PORT"] = str(CLOSED_PORT)


@fault(r"✗ server name: 'no-such-server.invalid' cannot be resolved: .* → check TB_HOST, the network")
def unknown_host(site: Site) -> None:
    site.environment["TB_HOST"] = "no-such-server.invalid"


@fault(r"✗ disk: the disk is full: \d+ kB of 21 MB free → make room")
def full_disk(site: Site) -> None:
    place = site.directory / "small"
    place.mkdir()
    site.mount(place, "-t", "tmpfs", "-o", "size=20m,mode=0700", "teg-test")
    (place / "film.mp4").write_bytes(bytes(20_600_000))
    site.environment["TEG_DATA_PATH"] = str(place)


@fault(r"✗ inbox: .*/communication_queue.db cannot be read: No such file or directory → start the controller")
def no_inbox(site: Site) -> None:
    site.environment["TEG_CONTROLLER_DATA_PATH"] = str(site.directory / "elsewhere")


@fault(r"✗ inbox rights: .* cannot be written, so nothing would leave it → chown")
def inbox_that_cannot_be_written(site: Site) -> None:
    site.mount(site.gateway.controller_path, "-o", "bind,ro", str(site.gateway.controller_path))


@fault(r"! inbox journal: no write-ahead log: controller and gateway wait for each other → the controller should run")
def inbox_without_write_ahead_log(site: Site) -> None:
    site.inbox.connection.execute("PRAGMA journal_mode=DELETE")


@fault(r"! heartbeat: the controller has been silent for 3 h → see what the controller does: docker logs")
def silent_controller(site: Site) -> None:
    site.inbox.heartbeat(time.time_ns() // 1_000_000 - 3 * 3_600_000)


@fault(r"! settings: TEG_DATAPATH is not a setting of this gateway; did you mean TEG_DATA_PATH\?")
def misspelled_setting(site: Site) -> None:
    site.environment["TEG_DATAPATH"] = "/somewhere"


@fault(r"✗ settings: TB_PORT='mqtts' is not a whole number from 1 to 65535 → see docs/settings.md")
def wrong_setting(site: Site) -> None:
    site.environment["TB_PORT"] = "mqtts"


@fault(r"! quotes: the value of THINGSBOARD_DEVICE_NAME begins and ends with a quote → remove the quotes")
def quotes_of_an_env_file(site: Site) -> None:
    site.environment["THINGSBOARD_DEVICE_NAME"] = '"pi"'


@fault(r"✗ provisioning: only half of the pair of key and secret is set → set THINGSBOARD_PROVISION_DEVICE_SECRET too")
def half_a_key_pair(site: Site) -> None:
    site.environment["THINGSBOARD_PROVISION_DEVICE_KEY"] = "key"


@fault(r"! token file: others can read .*/token → chmod 600 .*/token")
def token_that_everybody_reads(site: Site) -> None:
    site.gateway.token_path.chmod(0o644)


@fault(r"✗ docker: the Docker Engine at unix:///nowhere.sock cannot be used: No such file .* → systemctl start docker")
def no_docker(site: Site) -> None:
    site.environment |= {"TEG_CONTROLLER_RUNTIME": "docker", "DOCKER_HOST": "unix:///nowhere.sock"}


@fault(r"✗ controller image: the image of version v7 is not on this device → assign the version on the server again")
def image_missing(site: Site) -> None:
    engine = site.stack.enter_context(sick_engine())
    site.environment |= {"TEG_CONTROLLER_RUNTIME": "docker", "DOCKER_HOST": f"unix://{engine.server_address}"}
    site.environment |= {"TEG_DEFAULT_CONTROLLER_VERSION": "v7"}


@fault(r"✗ controller repository: asking the remote 'origin' failed: .* → check its address and credentials")
def git_remote_gone(site: Site) -> None:
    path = site.directory / "repository"
    subprocess.run(["git", "init", "-q", path], check=True)
    subprocess.run(["git", "-C", path, "remote", "add", "origin", f"http://127.0.0.1:{CLOSED_PORT}/c.git"], check=True)
    site.environment["TEG_CONTROLLER_GIT_PATH"] = str(path / ".git")


@fault(r"✗ queue: redis://127.0.0.1:\d+/0 cannot be used: .* → start that server")
def queue_server_gone(site: Site) -> None:
    site.environment |= {"TEG_QUEUE_URL": f"redis://127.0.0.1:{CLOSED_PORT}/0", **queue_libraries.environment()}


@pytest.mark.parametrize("name", FAULTS)
def test_the_first_line_of_check_names_the_fault(name: str) -> None:
    plant, first_line = FAULTS[name]
    directory = Path(tempfile.mkdtemp(prefix="teg-fault-"))
    directory.chmod(0o755)
    try:
        with site_in(directory) as site:
            plant(site)
            shown = site.teg("check")
    finally:
        shutil.rmtree(directory)
    assert re.match(first_line, shown.stdout), f"{shown.stdout[:1000]}\n{shown.stderr}"
    assert shown.returncode == {"✗": 2, "!": 1}[shown.stdout[0]]


def test_a_sound_site_has_no_problem_and_many_lines(site: Site) -> None:
    shown = site.teg("check")
    assert "✗" not in shown.stdout
    assert len(shown.stdout.splitlines()) >= 30
    assert shown.returncode == 1, "that no gateway runs is worth a word"


def test_every_line_that_is_not_fine_has_a_remedy(site: Site) -> None:
    unknown_host(site)
    found = json.loads(site.teg("check", "--json").stdout)
    assert all(each["remedy"] for each in found if each["level"] in ("problem", "warning"))
    assert found[0]["level"] == "problem"


def test_check_beside_a_running_gateway_leaves_its_session_alone(site: Site) -> None:
    site.start()
    site.device.wait_connected(30)
    shown = site.teg("check")
    assert "✓ access token: the running gateway is connected with it" in shown.stdout
    assert "✓ gateway: running" in shown.stdout
    assert len(site.device.sessions) == 1


# --- teg status --------------------------------------------------------------------------------------------


def first_line(site: Site) -> str:
    return (site.teg("status").stdout.splitlines() or [""])[0]


def test_status_of_a_sound_gateway(site: Site) -> None:
    site.start()
    site.device.wait_connected(30)
    shown = site.teg("status")
    assert shown.returncode == 0, shown.stdout
    assert shown.stdout.startswith("gateway      running")
    assert "server       connected since" in shown.stdout
    assert site.teg("status", "--alive").returncode == 0


def test_status_of_none(site: Site) -> None:
    assert first_line(site).startswith("trouble      the gateway does not run; systemctl start teg")
    assert site.teg("status").returncode == 2
    assert site.teg("status", "--alive").returncode == 1


def test_status_of_a_gateway_that_hangs(site: Site) -> None:
    site.start()
    site.device.wait_connected(30)
    assert site.gateway.process is not None
    site.gateway.process.send_signal(signal.SIGSTOP)
    shown = site.teg("status")
    site.gateway.process.send_signal(signal.SIGCONT)
    assert shown.stdout.startswith("trouble      the gateway does not answer")
    assert shown.returncode == 2


def test_status_without_a_server(site: Site) -> None:
    closed_port(site)
    site.start()
    wait_until(lambda: "no connection to the server" in first_line(site), 30, "the trouble is shown")
    shown = site.teg("status")
    assert "Connection refused" in shown.stdout.splitlines()[0]
    assert "NOT CONNECTED" in shown.stdout
    assert "next try" in shown.stdout
    assert shown.returncode == 1
    assert site.teg("status", "--alive").returncode == 0, "no network is no reason to restart anything"


def test_status_with_a_wrong_token(site: Site) -> None:
    wrong_token(site)
    site.start()
    wait_until(lambda: "does not know this access token" in first_line(site), 30, "the trouble is shown")


def test_status_of_a_cloned_card(site: Site) -> None:
    """The server closes one session for the other, again and again."""
    site.start()

    def shown_after_a_kick() -> bool:
        if site.device.connected:
            site.device.kick()
        return "cloned SD card" in first_line(site)

    wait_until(shown_after_a_kick, 120, "the trouble is shown")
    assert re.match(r"✗ access token: .*\(a cloned SD card\?\)", site.teg("check").stdout.splitlines()[0])


def test_status_of_a_dead_controller(site: Site) -> None:
    site.environment |= {"TEG_CONTROLLER_RUNTIME": "process", "TEG_CONTROLLER_COMMAND": "false"}
    site.start()
    wait_until(lambda: "the controller does not run: waiting" in first_line(site), 60, "the trouble is shown")
    assert "last ended" in site.teg("status").stdout


def test_run_is_the_gateway_with_the_references_arguments(site: Site) -> None:
    environment = {**site.gateway.environment, "TB_HOST": "wrong.invalid", "TB_PORT": "1"}
    arguments = ["run", "--tb-host", "localhost", "--tb-port", str(site.server.port)]
    process = subprocess.Popen([TEG, *arguments], env=environment, cwd=site.directory, stderr=subprocess.DEVNULL)
    try:
        site.device.wait_connected(30)
        assert site.device.rpc("exit").response == {"message": "OK - Exiting"}
        assert process.wait(30) == 15
    finally:
        process.kill()
        process.wait()
