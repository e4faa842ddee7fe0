"""`teg why`: what became of a record, a call, an update, told by the archive; and what it waits for."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import orjson
import pytest

from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.running import ControllerInbox, RunningGateway, message, wait_until

TEG = str(Path(sys.executable).parent / "teg")


class Site:
    def __init__(self, directory: Path) -> None:
        self.server = ThingsBoard()
        self.device = self.server.add_device("pi", token="T1")
        self.gateway = RunningGateway(directory, self.server.host, self.server.port, "T1")
        self.inbox = ControllerInbox(self.gateway.inbox_path)

    def why(self, name: object, code: int = 0) -> str:
        command = [TEG, "why", str(name)]
        done = subprocess.run(command, env=self.gateway.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def record(self, number: int) -> int:
        return int(str(self.gateway.rows(f"SELECT id FROM record WHERE source_row = {number} AND kind = 0")[0][0]))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    with site.server, closing(site.inbox):
        yield site


def test_the_life_of_a_record_from_the_inbox_to_the_proof(site: Site) -> None:
    with site.gateway:
        site.device.wait_connected(30)
        site.inbox.insert(message(1))
        site.inbox.insert('{"ts": 1767225600002, "values": {"x": 12345678901234567890}}')
        site.inbox.insert("no JSON")
        wait_until(lambda: "proven to be in the server's database" in site.why("row:1"), 60, "the proof")
        told = site.why(f"record:{site.record(1)}")
        assert f"record {site.record(1)}  " + message(1) in told
        assert "2026-01-01 00:00:00Z  is its time stamp" in told
        assert "taken from row 1 of the controller's inbox, and archived" in told
        assert told == site.why("1767225600001") == site.why("2026-01-01T00:00:00.001")
        assert "was set right for sending" in site.why("row:2")
        assert "set aside: message is not JSON" in site.why("row:3")
        assert site.why("row:3") == site.why("#1")
        assert "nothing is known of 'record:999999'" in site.why("record:999999", code=1)
        assert "is no number" in site.why("call:abc", code=1)


def test_a_record_that_waits_says_for_what(site: Site) -> None:
    site.server.stop_listening()
    with site.gateway:
        site.inbox.insert_many(message(number) for number in range(1, 6))
        wait_until(lambda: site.gateway.archived() == 5, 30, "archived")
        wait_until(lambda: "Connection refused" in site.why("row:5"), 30, "the reason")
        told = site.why("row:5")
        assert "waits among what is on its way; 4 before it" in told
        assert "in the way: " in told
        assert site.gateway.stop() == 0
    assert "in the way: the gateway does not run" in site.why("row:5")
    assert "acknowledged" not in told


def test_the_life_of_a_call(site: Site) -> None:
    with site.gateway:
        site.device.wait_connected(30)
        site.device.rpc("archive_discard_messages", {"start_timestamp_ms": 1, "end_timestamp_ms": 2})
        number = int(str(site.gateway.rows("SELECT request_id FROM rpc_call")[0][0]))
        told = site.why(f"call:{number}")
        assert f"call {number}  archive_discard_messages" in told
        assert "received" in told
        assert "answer: OK - 0 messages discarded - 1 -> 2" in told


def test_the_life_of_an_update(site: Site) -> None:
    with site.gateway:
        site.device.wait_connected(30)
        assert site.gateway.stop() == 0
    steps = [
        [1767225600000, "v2", "v1", "DOWNLOADING", ""],
        [1767225660000, "v2", "v1", "FAILED", "the remote\x1b[2J is gone"],
        [1767225670000, "v3", "v1", "DOWNLOADING", ""],
    ]
    job = {"assignment": {"version": "v3"}, "phase": "fetching", "retry_at_ms": 1767225700000}
    with closing(sqlite3.connect(site.gateway.data_path / "gateway.db")) as database, database:
        for key, value in (("ota.steps", steps), ("ota.job", job)):
            database.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (key, orjson.dumps(value).decode()))
    told = site.why("v2")
    assert "2026-01-01 00:00:00Z  DOWNLOADING, v1 runs\n" in told
    assert "FAILED, v1 runs: the remote" in told
    assert "\x1b" not in told
    assert "v3" not in told
    assert "now: fetching, waits until 2026-01-01 00:01:40Z" in site.why("update:v3")
    assert "nothing is known of 'v4'" in site.why("v4", code=1)
