"""The table of calls: found by key, bounded, and safe to reopen."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from teg.adapters.gateway_db import rpc_journal
from teg.adapters.gateway_db.database import Database
from teg.adapters.gateway_db.rpc_journal import KEPT_EFFECTS, KEPT_QUICK, SHORT_ANSWER, WHOLE_ANSWERS, RpcJournalTable
from teg.domain.errors import Refused, Unavailable
from teg.domain.rpc.journal import CallKey, Entry, Instant, State
from teg.domain.server.wire import RpcRequest

NOW = Instant("boot", 100.0, 1_767_225_600_000)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "gateway.db")
    database.open(rpc_journal.SCHEMA)
    yield database
    database.close()


@pytest.fixture
def table(database: Database) -> RpcJournalTable:
    return RpcJournalTable(database)


def key(request_id: int = 0, method: str = "reboot", params: object = None) -> CallKey:
    return CallKey.of(RpcRequest(request_id, method, params))


def quick(request_id: int, wall_ms: int = 0) -> Entry:
    return Entry(
        key=CallKey(request_id, "ping", b""),
        params="null",
        state=State.DONE,
        answer='"Pong"',
        received_ms=wall_ms,
        duration_ms=1,
        at_boot_id="boot",
        at_uptime_s=1.0,
    )


def test_a_begun_call_is_found_with_what_was_noted(table: RpcJournalTable) -> None:
    entry_id = table.begin(key(), "null", NOW)
    assert table.find(key()) == Entry(
        id=entry_id,
        key=key(),
        params="null",
        state=State.BEGUN,
        received_ms=NOW.wall_ms,
        at_boot_id="boot",
        at_uptime_s=100.0,
    )
    assert table.find(key(1)) is None
    assert table.find(key(params=1)) is None


def test_a_change_keeps_what_it_does_not_name(table: RpcJournalTable) -> None:
    entry_id = table.begin(key(), "null", NOW)
    table.change(entry_id, State.ANSWERED, NOW, '"OK"', 12)
    table.change(entry_id, State.ACKNOWLEDGED, Instant("boot", 101.0, 0))
    found = table.find(key())
    assert found is not None
    assert (found.state, found.message, found.duration_ms, found.at_uptime_s) == (State.ACKNOWLEDGED, "OK", 12, 101.0)


def test_the_newest_entry_of_a_key_counts(table: RpcJournalTable) -> None:
    first, second = table.begin(key(), "null", NOW), table.begin(key(), "null", NOW)
    table.change(first, State.ACTED, NOW, '"OK"')
    found = table.find(key())
    assert found is not None and found.id == second
    acted = table.last_acted("reboot")
    assert acted is not None and acted.id == first
    assert table.last_acted("exit") is None
    assert [entry.id for entry in table.begun()] == [second]


def test_what_is_begun_survives_the_process(table: RpcJournalTable, database: Database) -> None:
    table.begin(key(), "null", NOW)
    database.close()
    again = Database(database.path)
    again.open(rpc_journal.SCHEMA)
    assert [entry.key for entry in RpcJournalTable(again).begun()] == [key()]
    again.close()


def test_the_table_is_bounded_and_quick_calls_do_not_push_out_the_others(
    table: RpcJournalTable, database: Database
) -> None:
    ids = [table.begin(key(n), "null", NOW) for n in range(3)]
    table.append([quick(n) for n in range(KEPT_QUICK + 500)])
    table.prune()
    assert database.rows("SELECT state, count(*) FROM rpc_call GROUP BY state ORDER BY 1") == [
        ("begun", 3),
        ("done", KEPT_QUICK),
    ]
    assert [entry.id for entry in table.begun()] == ids
    assert table.recent(1)[0].key.request_id == KEPT_QUICK + 499


def test_effects_are_bounded_too(table: RpcJournalTable, database: Database) -> None:
    with database.transaction() as connection:
        connection.executemany(
            "INSERT INTO rpc_call (request_id, method, digest, params, state, received_ms, at_boot_id, at_uptime_s)"
            " VALUES (?, 'exit', x'', '', 'acted', 0, '', 0)",
            [(n,) for n in range(KEPT_EFFECTS + 7)],
        )
    table.prune()
    assert database.rows("SELECT count(*), min(request_id) FROM rpc_call") == [(KEPT_EFFECTS, 7)]


def test_long_answers_are_shortened_once_they_are_not_repeated_any_more(table: RpcJournalTable) -> None:
    text = '"' + "x" * 5_000 + '"'
    ids = [table.begin(key(n), "null", NOW) for n in range(WHOLE_ANSWERS + 3)]
    for entry_id in ids[:-1]:
        table.change(entry_id, State.ACKNOWLEDGED, NOW, text)
    table.change(ids[0], State.ANSWERED, NOW)
    table.prune()
    messages = [entry.message for entry in table.recent(WHOLE_ANSWERS + 3)]
    assert len(messages[0]) == 5_000, "an answer that is not acknowledged is still repeated"
    assert [len(message) for message in messages[1:3]] == [SHORT_ANSWER, SHORT_ANSWER]
    assert len(messages[3]) == 5_000


def test_pruning_nothing_writes_nothing(table: RpcJournalTable, database: Database) -> None:
    table.append([quick(1)])
    size = database.path.with_name("gateway.db-wal").stat().st_size
    table.prune()
    assert database.path.with_name("gateway.db-wal").stat().st_size == size


def test_a_locked_database_is_transient(table: RpcJournalTable, database: Database) -> None:
    other = sqlite3.connect(database.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    database.rows("PRAGMA busy_timeout=50")
    with pytest.raises(Unavailable):
        table.begin(key(), "null", NOW)
    other.close()


def test_parameters_that_json_cannot_hold_are_refused() -> None:
    deep: list[object] = []
    for _ in range(2_000):
        deep = [deep]
    for params in (deep, {1: 2}, object()):
        with pytest.raises(Refused):
            key(params=params)


@pytest.mark.parametrize(
    ("state", "age_s", "stands"),
    [
        (State.BEGUN, 86_399, True),
        (State.ANSWERED, 86_399, True),
        (State.ANSWERED, 86_401, False),
        (State.INTERRUPTED, 86_399, True),
        (State.ACKNOWLEDGED, 59, True),
        (State.ACKNOWLEDGED, 61, False),
        (State.ACTED, 59, True),
        (State.ACTED, 61, False),
        (State.UNDELIVERED, 0, False),
        (State.DONE, 0, False),
    ],
)
def test_how_long_a_call_stands_for_its_key(state: State, age_s: float, stands: bool) -> None:
    entry = Entry(key=key(), params="", state=state, received_ms=0, at_boot_id="boot", at_uptime_s=100.0)
    assert entry.stands(Instant("boot", 100.0 + age_s, 0)) is stands


def test_in_another_boot_only_its_own_uptime_is_certain() -> None:
    entry = Entry(key=key(), params="", state=State.ACTED, received_ms=0, at_boot_id="before", at_uptime_s=5.0)
    assert entry.stands(Instant("now", 59.0, 10**15))
    assert not entry.stands(Instant("now", 61.0, 0))
