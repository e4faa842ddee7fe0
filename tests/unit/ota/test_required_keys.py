"""The archive as the witness of what a controller sends."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from teg.adapters.gateway_db import outbox, rpc_journal, state
from teg.adapters.gateway_db.database import Database
from teg.adapters.gateway_db.outbox import RecordTable
from teg.adapters.gateway_db.telemetry_keys import ArchivedKeys
from teg.domain.telemetry.validation import Record, validate

T = 1_767_225_600_000


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "gateway.db")
    database.open(outbox.SCHEMA, state.SCHEMA, rpc_journal.SCHEMA)
    yield database
    database.close()


@pytest.fixture
def table(database: Database) -> RecordTable:
    return RecordTable(database)


def recorded(row_id: int, ts_ms: int, values: dict[str, Any]) -> Record:
    record = validate(row_id, bytearray(b"measurement"), bytearray(orjson.dumps({"ts": ts_ms, "values": values})))
    assert isinstance(record, Record)
    return record


def test_the_keys_of_a_span_are_those_recorded_in_it(database: Database, table: RecordTable) -> None:
    table.store(
        [
            recorded(1, T - 1, {"before": 1}),
            recorded(2, T, {"temperature": 20.5, "humidity": 1}),
            recorded(3, T + 999, {"temperature": 20.6, "pressure": 0.30000000000000004}),
            recorded(4, T + 1000, {"after": 1}),
        ],
        [],
        None,
    )
    assert set(ArchivedKeys(database).keys_between(T, T + 1000)) == {"temperature", "humidity", "pressure"}


def test_the_gateways_own_records_do_not_count(database: Database, table: RecordTable) -> None:
    table.store_own([(T, orjson.dumps({"ts": T, "values": {"sw_state": "UPDATING"}}))])
    assert set(ArchivedKeys(database).keys_between(T, T + 1000)) == set()
