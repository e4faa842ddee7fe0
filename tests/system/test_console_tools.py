"""The operator's tools on a real site: backup and restore, the bundle without secrets, audit, send, dead letters."""

import csv
import io
import json
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.running import ControllerInbox, RunningGateway, message, wait_until

TEG = Path(sys.executable).parent / "teg"
CANARY = "canary-7f3a9c"


class Site:
    """A gateway whose token and provisioning keys are canaries, a server that is there when it is started."""

    def __init__(self, directory: Path) -> None:
        self.server = ThingsBoard()
        self.device: Device = self.server.add_device("pi", token=f"{CANARY}-token")
        keys = {
            "THINGSBOARD_PROVISION_DEVICE_KEY": f"{CANARY}-key",
            "THINGSBOARD_PROVISION_DEVICE_SECRET": f"{CANARY}-secret",
            "TEG_CONTROLLER_ENVIRONMENT": f"PASSWORD={CANARY}-environment",
            "TEG_RPC_RUN_COMMAND": "on",
        }
        self.gateway = RunningGateway(directory, self.server.host, self.server.port, f"{CANARY}-token", **keys)
        self.inbox = ControllerInbox(self.gateway.inbox_path)

    def teg(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [str(TEG), *map(str, arguments)]
        return subprocess.run(
            command,
            env=self.gateway.environment,
            cwd=self.gateway.directory,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def ok(self, *arguments: object) -> str:
        done = self.teg(*arguments)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def records(self) -> list[int]:
        return [int(str(row[0])) for row in self.gateway.rows("SELECT ts FROM record WHERE kind = 0 ORDER BY ts")]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    with site.server, closing(site.inbox), site.gateway:
        site.device.wait_connected(30)
        yield site


def archived(site: Site, count: int) -> None:
    wait_until(lambda: site.gateway.archived() >= count, 30, f"{count} records archived")


# --- backup and restore ------------------------------------------------------------------------------------


def test_a_backup_of_a_running_gateway_makes_another_card_this_device(site: Site, tmp_path: Path) -> None:
    site.inbox.insert_many(message(number) for number in range(1, 4))
    archived(site, 3)
    file = tmp_path / "backup"
    assert "gateway.db, tb_access_token" in site.ok("backup", file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert site.gateway.stop() == 0

    other = RunningGateway(tmp_path / "other", site.server.host, site.server.port, "")
    done = subprocess.run([TEG, "restore", file], env=other.environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert other.token_path.read_text() == f"{CANARY}-token"
    with other:
        site.device.wait_for(lambda _: len(site.device.sessions) >= 2, 30, "the other card connects as this device")
        assert other.archived() == 3
        assert other.stop() == 0


def test_a_backup_while_records_pour_in_is_whole(site: Site, tmp_path: Path) -> None:
    for number in range(5):
        site.inbox.insert_many(message(number * 1000 + row) for row in range(1000))
        site.ok("backup", tmp_path / str(number))
    for number in range(5):
        with tarfile.open(tmp_path / str(number)) as archive:
            archive.extract("gateway.db", tmp_path / "look", filter="data")
        with closing(sqlite3.connect(tmp_path / "look" / "gateway.db")) as copy:
            assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            kept = copy.execute("SELECT count(*), count(DISTINCT ts) FROM record WHERE kind = 0").fetchone()
            assert kept[0] == kept[1]


def test_restore_keeps_what_it_replaces(site: Site, tmp_path: Path) -> None:
    site.inbox.insert(message(1))
    archived(site, 1)
    site.ok("backup", tmp_path / "backup")
    site.inbox.insert(message(2))
    archived(site, 2)
    assert site.gateway.stop() == 0
    said = site.ok("restore", tmp_path / "backup")
    assert len(site.records()) == 1
    [kept] = site.gateway.data_path.glob("before-restore-*")
    assert str(kept) in said
    with closing(sqlite3.connect(kept / "gateway.db")) as former:
        assert former.execute("SELECT count(*) FROM record WHERE kind = 0").fetchone() == (2,)


def test_restore_beside_a_running_gateway_is_refused(site: Site, tmp_path: Path) -> None:
    site.ok("backup", tmp_path / "backup")
    done = site.teg("restore", tmp_path / "backup")
    assert done.returncode == 1
    assert "stop it first" in done.stderr
    assert not list(site.gateway.data_path.glob("before-restore-*"))


def kept_names(site: Site) -> list[str]:
    """Without the lock, and what SQLite makes to read a database."""
    passing = {"gateway.lock", "gateway.db-wal", "gateway.db-shm"}
    return sorted({path.name for path in site.gateway.data_path.iterdir()} - passing)


def evil_backups(directory: Path) -> Iterator[tuple[str, Path]]:
    def made(name: str, *members: tarfile.TarInfo, content: bytes = b"x" * 100) -> tuple[str, Path]:
        with tarfile.open(directory / name, "w:gz") as archive:
            for member in members:
                member.size = len(content) if member.isreg() else 0
                archive.addfile(member, io.BytesIO(content) if member.isreg() else None)
        return name, directory / name

    link = tarfile.TarInfo("gateway.db")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    yield made("climbs", tarfile.TarInfo("../../escaped"))
    yield made("link", link)
    yield made("stranger", tarfile.TarInfo("gateway.db"), tarfile.TarInfo("evil.py"))
    yield made("twice", tarfile.TarInfo("gateway.db"), tarfile.TarInfo("gateway.db"))
    yield made("no-database", tarfile.TarInfo("tb_access_token"))
    yield made("rubbish", tarfile.TarInfo("gateway.db"))
    (directory / "no-tar").write_bytes(b"hello")
    yield "no-tar", directory / "no-tar"


def test_a_file_that_is_no_backup_changes_nothing(site: Site, tmp_path: Path) -> None:
    site.inbox.insert(message(1))
    archived(site, 1)
    assert site.gateway.stop() == 0
    before = kept_names(site)
    (tmp_path / "evil").mkdir()
    for name, file in evil_backups(tmp_path / "evil"):
        done = site.teg("restore", file)
        assert done.returncode == 1, name
        assert "Traceback" not in done.stderr, f"{name}: {done.stderr}"
        assert kept_names(site) == before, name
        assert len(site.records()) == 1, name


# --- the bundle --------------------------------------------------------------------------------------------


def test_the_bundle_tells_much_and_no_secret(site: Site, tmp_path: Path) -> None:
    site.device.rpc("run_command", {"command": ["echo", f"--password={CANARY}-call"]})
    site.ok("bundle", tmp_path / "bundle.tar.gz")
    with tarfile.open(tmp_path / "bundle.tar.gz") as archive:
        files = {
            member.name: (archive.extractfile(member) or io.BytesIO()).read().decode()
            for member in archive.getmembers()
        }
    assert not [name for name, text in files.items() if CANARY in text]
    assert "provision_secret = set" in files["teg-bundle/settings.txt"]
    assert "tb_host = 127.0.0.1" in files["teg-bundle/settings.txt"]
    assert "gateway: running" in files["teg-bundle/check.txt"]
    assert json.loads(files["teg-bundle/status.json"])["running"] is True
    assert "huey" in files["teg-bundle/versions.txt"]


# --- audit, send -------------------------------------------------------------------------------------------


def test_the_audit_is_a_table_that_no_spreadsheet_obeys(site: Site) -> None:
    site.device.rpc("run_command", {"command": ["echo", "=1+1"]})
    site.device.rpc("=cmd|' /C calc'!A0")
    wait_until(lambda: len(site.gateway.rows("SELECT id FROM rpc_call")) >= 1, 90, "the calls are in the journal")
    table = list(csv.reader(io.StringIO(site.ok("audit"))))
    assert table[0] == ["time", "id", "method", "parameters", "state", "duration_ms", "answer"]
    assert "run_command" in {row[2] for row in table}
    assert not [cell for row in table for cell in row if cell[:1] in ("=", "+", "-", "@")]
    assert len(list(csv.reader(io.StringIO(site.ok("audit", "--day", "1999-01-01"))))) == 1


def test_a_record_sent_by_hand_arrives(site: Site) -> None:
    said = json.loads(site.ok("send", "co2=412.5", "note=filter changed = good", "open=true"))
    assert said["values"] == {"co2": 412.5, "note": "filter changed = good", "open": True}
    site.device.wait_for(lambda device: device.latest("co2") == 412.5, 30, "it arrives")
    assert site.device.latest("note") == "filter changed = good"


@pytest.mark.parametrize("values", ["co2", "=5", "two words=5"])
def test_what_is_no_value_is_refused(site: Site, values: str) -> None:
    done = site.teg("send", values)
    assert done.returncode == 2
    assert "is not KEY=VALUE" in done.stderr


def test_logs_without_a_journal_says_where_they_are(site: Site) -> None:
    if Path("/run/systemd/system").is_dir():
        pytest.skip("this machine has a journal")
    assert "standard error" in site.teg("logs").stderr
    assert "cannot be used" in site.teg("logs", "--controller").stderr
