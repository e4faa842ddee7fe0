"""A real gateway process and what a controller does to the inbox meanwhile: nothing is lost, nobody waits."""

import json
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.running import message, remove_tree, wait_until
from tests.support.site import Site, running_site


@pytest.fixture
def server() -> Iterator[ThingsBoard]:
    with ThingsBoard(packet_log=0) as server:
        yield server


@pytest.mark.slow
def test_a_locked_inbox_holds_nothing_up_and_loses_nothing(tmp_path: Path, server: ThingsBoard) -> None:
    with running_site(tmp_path, server) as site:
        lock = site.inbox.connection
        lock.execute("BEGIN IMMEDIATE")
        lock.execute("INSERT INTO messages (type, message) VALUES ('m', ?)", (message(1),))
        lock.execute("COMMIT")
        lock.execute("BEGIN IMMEDIATE")
        site.recorded = 1
        site.device.wait_for(lambda _: site.stored() == 1, 20, "published while the inbox is locked")
        site.inbox.heartbeat(1_767_225_600_000)
        time.sleep(12)
        assert site.gateway.rows("SELECT count(*) FROM record WHERE kind = 0") == [(1,)]
        lock.execute("COMMIT")
        site.record(100)
        site.wait_delivered()
        site.assert_nothing_lost()
        assert site.device.duplicates == 0


def test_an_inbox_that_comes_later_and_one_that_is_created_anew(tmp_path: Path, server: ThingsBoard) -> None:
    site = Site(tmp_path, server)
    site.inbox.close()
    shutil.rmtree(site.gateway.controller_path)
    with site.gateway:
        site.device.wait_connected(30)
        site.gateway.controller_path.mkdir()
        for _ in range(3):
            site.inbox = type(site.inbox)(site.inbox.path)
            site.record(50)  # the same ids each time
            site.wait_delivered()
            site.inbox.close()
            for path in site.gateway.controller_path.iterdir():
                if path.is_file():
                    path.unlink(missing_ok=True)
        remove_tree(site.gateway.controller_path)
        site.gateway.controller_path.mkdir()
        site.inbox = type(site.inbox)(site.inbox.path)
        site.record(50)
        site.wait_delivered()
    site.assert_nothing_lost()
    site.inbox.close()


def test_a_field_controller_never_meets_a_locked_inbox(tmp_path: Path, server: ThingsBoard) -> None:
    """5 s of patience, a passive checkpoint after each insert, exit on any error: through a drain of 50,000 rows."""
    site = Site(tmp_path, server)
    site.record(50_000)
    backlog = site.recorded
    controller = sqlite3.connect(site.inbox.path, isolation_level=None)  # its time-out is 5 s by default

    def drained() -> bool:  # of the backlog: the inbox itself is never empty, while this goes on
        (oldest,) = controller.execute("SELECT min(id) FROM messages").fetchone()
        return oldest is None or oldest > backlog

    with site.gateway:
        while not drained() or site.recorded < backlog + 1000:
            controller.execute("BEGIN IMMEDIATE")
            site.recorded += 1
            controller.execute("INSERT INTO messages (type, message) VALUES ('m', ?)", (message(site.recorded),))
            controller.execute("COMMIT")
            controller.execute("PRAGMA wal_checkpoint(PASSIVE)")
            time.sleep(0.002)
            assert site.recorded < backlog + 20_000, "the drain does not come to its end"
        site.wait_delivered()
    site.assert_nothing_lost()
    controller.close()
    site.inbox.close()


HOSTILE: list[Any] = [
    "",
    "hello",
    None,
    b"\x00\xff blob",
    b'{"ts": 1767225600001, "values": {"n": 1}}',
    42,
    "[]",
    "[" * 5000 + "]" * 5000,
    '{"values": {"a": 1}}',
    '{"ts": "1767225600123", "values": {"a": 1}}',
    '{"ts": true, "values": {"a": 1}}',
    '{"ts": NaN, "values": {"a": 1}}',
    '{"ts": -5, "values": {"a": 1}}',
    '{"ts": 1767225600, "values": {"a": 1}}',
    '{"ts": 1767225600123}',
    '{"ts": 1767225600123, "values": {}}',
    '{"ts": 1767225600123, "values": [1, 2]}',
    '{"ts": 1767225600123, "values": {"a": NaN}}',
    '{"ts": 1767225600123, "values": {"' + "k" * 300 + '": 1}}',
    '{"ts": 1767225600123, "values": {"a": "' + "x" * 200_000 + '"}}',
    '{"ts": 1767225600123, "values": {"a": ' + "[" * 5000 + "]" * 5000 + "}}",
    "x" * 3_000_000,
]


def test_hostile_rows_among_good_ones_hold_nothing_up(tmp_path: Path, server: ThingsBoard) -> None:
    with running_site(tmp_path, server) as site:
        for text in HOSTILE:
            site.record(20)
            site.inbox.insert(text, row_type="measurement")
            site.inbox.insert(text, row_type=None)
        site.record(20)
        site.inbox.connection.execute(
            "INSERT INTO messages (type, message) VALUES ('m', CAST(? AS TEXT))", (b'{"ts": 1, "\xff": 1}',)
        )
        site.wait_delivered()
        letters = site.dead_letters()
        assert len(letters) == 2 * len(HOSTILE) + 1
        assert all(reason for _, reason in letters)
        assert site.counters()["set_aside"] == len(letters)
        site.assert_nothing_lost()
        assert "Traceback" not in site.gateway.log()


def test_log_records_are_published_and_not_kept(tmp_path: Path, server: ThingsBoard) -> None:
    with running_site(tmp_path, server) as site:
        for number, row_type in enumerate(("log", "log_warning", "catalog"), start=1):
            text = {"ts": 1_767_225_600_000 + number, "values": {"severity": "INFO", "message": row_type}}
            site.inbox.insert(json.dumps(text), row_type)
        site.device.wait_for(
            lambda d: {"log", "log_warning", "catalog"} <= {str(value) for value in d.telemetry().values()},
            20,
            "all three",
        )
        wait_until(lambda: site.pending() == 0, 20, "everything is marked")
        kept = "SELECT message FROM record WHERE source_row IS NOT NULL"
        wait_until(lambda: len(site.gateway.rows(kept)) == 1, 120, "the others, proven to be stored, are gone")
        assert [json.loads(str(text))["values"]["message"] for (text,) in site.gateway.rows(kept)] == ["catalog"]
        site.assert_account()
