"""What changes the archive, beside a running gateway and without one; and the way of a backlog on a stick."""

import csv
import gzip
import io
import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.running import CLOSED_PORT, ControllerInbox, RunningGateway, message, wait_until

TEG = Path(sys.executable).parent / "teg"
RECORDS = 2500


class Site:
    """A gateway, and a desk elsewhere: a home directory and the server's address."""

    def __init__(self, directory: Path, server: ThingsBoard, *, port: int | None = None) -> None:
        self.server = server
        self.device: Device = server.add_device("pi-07", token="T1")
        self.gateway = RunningGateway(
            directory / "site", server.host, port or server.port, "T1", THINGSBOARD_DEVICE_NAME="pi-07"
        )
        self.inbox = ControllerInbox(self.gateway.inbox_path)
        self.home = directory / "home"
        self.home.mkdir()

    def teg(self, *arguments: object, typed: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(TEG), *map(str, arguments)],
            env={**self.gateway.environment, "HOME": str(self.home), **environment},
            cwd=self.gateway.directory,
            input=typed,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def ok(self, *arguments: object, **environment: str) -> str:
        done = self.teg(*arguments, **environment)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def desk(self, *arguments: object, port: int | None = None) -> subprocess.CompletedProcess[str]:
        """`teg archive import` on another machine: nothing of the site is there."""
        elsewhere = {"TEG_DATA_PATH": str(self.home / "data"), "TB_PORT": str(port or self.server.port)}
        return self.teg("archive", "import", *arguments, **elsewhere)

    def letters(self) -> list[int]:
        return [int(str(row[0])) for row in self.gateway.rows("SELECT id FROM dead_letter ORDER BY id")]


@pytest.fixture
def server() -> Iterator[ThingsBoard]:
    with ThingsBoard() as server:
        yield server


@contextmanager
def site_of(directory: Path, server: ThingsBoard, port: int | None = None) -> Iterator[Site]:
    site = Site(directory, server, port=port)
    with closing(site.inbox), site.gateway:
        yield site


# --- dead letters -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("running", [True, False])
def test_dead_letters_are_shown_sent_again_and_dropped(tmp_path: Path, server: ThingsBoard, running: bool) -> None:
    with site_of(tmp_path, server) as site:
        site.device.wait_connected(30)
        for text in ("no JSON", "{}", "[]"):
            site.inbox.insert(text)
        wait_until(lambda: len(site.letters()) == 3, 30, "three letters")
        if not running:
            assert site.gateway.stop() == 0
        healed = {"ts": 1_767_225_600_000, "values": {"healed": 7}}  # what an earlier version could not read
        with closing(sqlite3.connect(site.gateway.data_path / "gateway.db")) as database, database:
            database.execute("UPDATE dead_letter SET message = ? WHERE id = 1", (json.dumps(healed).encode(),))
        assert "set aside" in site.ok("dead-letters", "show", 1)
        assert site.ok("dead-letters", "retry", "--all") == "OK - 1 dead letters queued again\n"
        assert site.ok("dead-letters", "drop", "--yes", 2) == "OK - 1 dead letters dropped\n"
        assert site.letters() == [3]
        calls = list(csv.DictReader(io.StringIO(site.ok("audit"))))
        assert [(call["method"], call["id"][:2], call["state"]) for call in calls] == [
            ("dead_letters", "'-", "acknowledged"),
            ("dead_letters", "'-", "acknowledged"),
        ]
        if not running:
            assert site.gateway.rows("SELECT count(*) FROM outbox WHERE lane = 1") == [(1,)]
            site.gateway.start()
        site.device.wait_for(lambda device: device.latest("healed") == 7, 30, "it arrives")
        counts = json.loads(site.ok("status", "--json"))
        assert (counts["accepted"], counts["delivered"], counts["pending"], counts["set_aside"]) == (1, 1, 0, 2)


@pytest.mark.parametrize("arguments", [("retry",), ("drop", "--yes"), ("retry", "--all", "1")])
def test_which_letters_has_to_be_said(tmp_path: Path, server: ThingsBoard, arguments: tuple[str, ...]) -> None:
    site = Site(tmp_path, server)
    with closing(site.inbox):
        done = site.teg("dead-letters", *arguments)
    assert done.returncode == 2
    assert "--all" in done.stderr


def test_without_an_archive_nothing_is_made(tmp_path: Path, server: ThingsBoard) -> None:
    site = Site(tmp_path, server)
    with closing(site.inbox):
        done = site.teg("dead-letters", "retry", "--all")
    assert done.returncode == 1
    assert "has not run with these settings yet" in done.stderr
    assert not (site.gateway.data_path / "gateway.db").exists()


# --- republish ----------------------------------------------------------------------------------------------


def test_measurements_are_sent_again_on_request(tmp_path: Path, server: ThingsBoard) -> None:
    with site_of(tmp_path, server) as site:
        site.inbox.insert_many(message(number) for number in range(1, 11))
        site.device.wait_for(lambda device: device.points_per_key().get("n") == 10, 30, "ten records")
        duplicates = site.device.duplicates
        assert "OK - 10 messages republished" in site.ok("archive", "republish", "--yes")
        site.device.wait_for(lambda device: device.duplicates >= duplicates + 10, 30, "ten records again")
        assert site.teg("archive", "republish", "--since", "yesterday").returncode == 2


# --- on a stick ---------------------------------------------------------------------------------------------


def stranded(site: Site) -> None:
    """`RECORDS` records that found no server."""
    site.inbox.insert_many(message(number) for number in range(1, RECORDS + 1))
    wait_until(lambda: site.gateway.archived() >= RECORDS, 60, "archived")


def token_file(site: Site, token: str) -> Path:
    path = site.home / "token"
    path.write_text(token)
    path.chmod(0o600)
    return path


def test_a_backlog_goes_by_stick_through_another_gateway(tmp_path: Path, server: ThingsBoard) -> None:
    server.add_device("desk", token="DESK").make_gateway()
    with site_of(tmp_path, server, port=CLOSED_PORT) as site:
        stranded(site)
        file = tmp_path / "stick.gz"
        assert f"{RECORDS} records of device 'pi-07'" in site.ok("archive", "export", "--undelivered", file)
        done = site.desk(file, "--yes", "--token-file", token_file(site, "DESK"))
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"{RECORDS} of {RECORDS} records acknowledged" in done.stdout
        assert "none of them is proven stored" in done.stdout
        expected = {(key, ts): value for key, ts, value in sent(file)}
        assert site.device.telemetry() == expected, "under the device that they came from, with their time stamps"
        assert not server.device("desk").telemetry()
        again = site.desk(file, "--yes", "--token-file", token_file(site, "DESK"))
        assert again.returncode == 1
        assert "it was imported at" in again.stderr and "all of it acknowledged" in again.stderr
        assert site.device.records_received == RECORDS


def sent(file: Path) -> list[tuple[str, int, object]]:
    with gzip.open(file, "rt") as lines:
        records = [json.loads(line)["record"] for line in lines if '"record"' in line]
    return [(key, record["ts"], value) for record in records for key, value in record["values"].items()]


def test_an_import_that_was_killed_goes_on_where_it_was(tmp_path: Path, server: ThingsBoard) -> None:
    server.add_device("desk", token="DESK").make_gateway()
    with site_of(tmp_path, server, port=CLOSED_PORT) as site:
        stranded(site)
        file = tmp_path / "stick.gz"
        site.ok("archive", "export", file)
        server.faults.puback_delay_s = 0.3
        command = [str(TEG), "archive", "import", str(file), "--yes", "--token-file", str(token_file(site, "DESK"))]
        place = {"HOME": str(site.home), "TEG_DATA_PATH": str(site.home / "data"), "TB_PORT": str(server.port)}
        process = subprocess.Popen(command, env={**site.gateway.environment, **place}, stdout=subprocess.DEVNULL)
        site.device.wait_for(lambda device: device.distinct > 0, 60, "the first ones")
        process.kill()
        process.wait()
        server.faults.puback_delay_s = 0.0
        done = site.desk(file, "--yes", "--token-file", token_file(site, "DESK"))
        assert f"{RECORDS} of {RECORDS} records acknowledged" in done.stdout, done.stderr
        assert site.device.telemetry() == {(key, ts): value for key, ts, value in sent(file)}


def test_a_token_that_is_no_gateways_is_told_and_nothing_arrives(tmp_path: Path, server: ThingsBoard) -> None:
    with site_of(tmp_path, server) as site:
        site.inbox.insert(message(1))
        site.device.wait_for(lambda device: device.latest("n") == 1, 30, "it arrives")
        file = tmp_path / "stick.gz"
        site.ok("archive", "export", file)
        own = site.teg("archive", "import", file, "--yes", "--own-token", "--token-file", token_file(site, "T1"))
        assert "the gateway that runs here uses this token" in own.stderr
        wrong = site.desk(file, "--yes", "--token-file", token_file(site, "WRONG"))
        assert "does not know this access token" in wrong.stderr
        assert site.gateway.stop() == 0
        duplicates = site.device.duplicates
        itself = site.desk(file, "--yes", "--own-token", "--token-file", token_file(site, "T1"))
        assert "1 of 1 records acknowledged" in itself.stdout, itself.stderr
        assert site.device.duplicates > duplicates


def test_what_was_damaged_on_the_way_is_refused_before_anything_is_sent(tmp_path: Path, server: ThingsBoard) -> None:
    server.add_device("desk", token="DESK").make_gateway()
    with site_of(tmp_path, server, port=CLOSED_PORT) as site:
        site.inbox.insert_many(message(number) for number in range(1, 51))
        wait_until(lambda: site.gateway.archived() >= 50, 30, "archived")
        good = tmp_path / "good.gz"
        site.ok("archive", "export", good)
        cut = tmp_path / "cut.gz"
        cut.write_bytes(good.read_bytes()[:-40])
        lines = gzip.decompress(good.read_bytes()).splitlines(keepends=True)
        changed = tmp_path / "changed.gz"
        changed.write_bytes(gzip.compress(b"".join([*lines[:3], *lines[4:]])))
        (tmp_path / "text.gz").write_text("hello")
        for file in (cut, changed, tmp_path / "text.gz"):
            done = site.desk(file, "--yes", "--token-file", token_file(site, "DESK"))
            assert done.returncode == 1, file
            assert "Error: " in done.stderr
            assert "Traceback" not in done.stderr
        assert not site.device.telemetry()
