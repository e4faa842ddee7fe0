"""Rows judged by one parse get the verdicts that each gets alone, whatever their neighbours hold."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from teg.domain.telemetry.ingest import Recorder
from teg.domain.telemetry.judging import TOGETHER, Judge, Plain
from teg.domain.telemetry.validation import Record, SetAside, holds_odd_numbers, validate
from tests.support.ingest import Site, never, texts
from tests.support.running import message

TS = 1_767_225_600_000
PLAIN = bytearray(message(1).encode())
#: Pieces of which a controller might put together a message that eats its neighbours, or hides in them.
PIECES = (
    *(
        '{"ts": 1767225600000, "values": {"a": 1}}',
        '{"ts":1767225600000,"values":{"a":',
        "1}}",
        "{",
        "}",
        "[",
        "]",
        ",",
    ),
    *(
        '"',
        '":',
        ":",
        "\\",
        '"x"',
        "1",
        " ",
        "null",
        "NaN",
        "1e5",
        "12345678901234567890",
        '{"values":{}}',
        "\n",
        "\x00",
    ),
    *(
        '{"ts": 1, "values": {"a": 1}}',
        '{"ts": 1767225600000.5, "values": {"a": 1}}',
        "{}",
        '{"ts":{},"values":{"a":{}}}',
    ),
    *('{"ts": 1767225600000, "values": {"": 1}}', '{"ts": 1767225600000, "values": {"a": "é"}}', "5", '""', '{"":0}'),
)
_TEXT = st.lists(st.sampled_from(PIECES), max_size=4).map("".join)
_MESSAGE: st.SearchStrategy[Any] = st.one_of(
    _TEXT.map(lambda text: bytearray(text.encode())),
    st.just(PLAIN),
    st.binary(max_size=8).map(bytearray),
    st.sampled_from([None, 5, 1.5, b"blob"]),
)
_TYPE = st.sampled_from([None, bytearray(b"log"), bytearray(b"measurement"), b"log", 7])


def alone(row_id: int, row_type: Any, text: Any) -> Plain | Record | SetAside:
    return validate(row_id, row_type, text)


def same(one: Plain | Record | SetAside, other: Plain | Record | SetAside, text: Any) -> bool:
    if isinstance(one, Plain):
        one = Record(one.source_row, one.ts_ms, one.points, text.decode(), None, one.transient)
    return one == other


@given(st.lists(st.tuples(_TYPE, _MESSAGE), max_size=8))
@example([(None, bytearray(b'{"ts":1767225600000,"values":{"a":')), (None, bytearray(b'1}},{"ts":1,"values":{}}'))])
@example([(None, bytearray(b'{"ts":1767225600000,"values":{"a":{"b":{}}}}')), (None, bytearray(b"5")), (None, PLAIN)])
@example([(None, bytearray(b"1,2")), (None, bytearray(b'{"ts":1767225600000,"values":{"a":1}}'))])
def test_the_verdict_is_the_one_that_the_row_gets_alone(found: list[tuple[Any, Any]]) -> None:
    validate(0, None, bytearray(b'{"ts": 1767225600000, "values": {"a": 1}}'))  # its keys are known
    rows = [(row_id, *row) for row_id, row in enumerate(found)]
    judged = list(Judge().judged(rows))
    assert [text for text, _ in judged] == [row[2] for row in rows]
    for (text, verdict), row in zip(judged, rows, strict=True):
        assert same(verdict, alone(*row), text)


@pytest.mark.parametrize("rows", [2, TOGETHER - 1, TOGETHER, TOGETHER + 1, 3 * TOGETHER + 7])
def test_plain_rows_are_parsed_together(rows: int) -> None:
    """Counted, not timed: one parse for as many as go together."""
    validate(0, None, PLAIN)
    many = [(number, None, bytearray(message(number).encode())) for number in range(rows)]
    with patch.object(orjson, "loads", wraps=orjson.loads) as parse:
        judged = list(Judge().judged(many))
    assert all(isinstance(verdict, Plain) for _, verdict in judged[: rows - rows % TOGETHER or rows])
    assert parse.call_count == -(-rows // TOGETHER)


def test_a_row_that_is_not_plain_costs_only_its_own_group_the_short_way() -> None:
    validate(0, None, PLAIN)
    rows: list[tuple[int, Any, Any]] = [(n, None, PLAIN) for n in range(2 * TOGETHER)]
    rows[3] = (3, None, bytearray(b'{"ts": 1767225600000, "values": {"a": 1e5}}'))
    kinds = [type(verdict) for _, verdict in Judge().judged(rows)]
    assert kinds == [Record] * TOGETHER + [Plain] * TOGETHER


def test_each_process_has_a_joint_of_its_own_which_looks_like_no_number() -> None:
    one, other = Judge(), Judge()
    assert one._joint != other._joint
    assert not holds_odd_numbers(bytearray(one._joint))


def test_rows_are_taken_as_they_are_needed() -> None:
    """A batch ends by its bytes: what comes after it is not read."""
    taken: list[int] = []

    def rows() -> Any:
        for number in range(10 * TOGETHER):
            taken.append(number)
            yield (number, None, PLAIN)

    next(Judge().judged(rows()))
    assert len(taken) == TOGETHER


def test_a_number_that_the_server_cannot_keep_is_noticed_in_the_middle_of_a_backlog(tmp_path: Path) -> None:
    site = Site(tmp_path)
    odd = '{"ts": 1767225600000, "values": {"column": 1e21}}'
    site.controller.insert_many([*texts(0, 149), odd, *texts(150, 299)])
    noticed: list[str] = []
    Recorder(site.inbox, site.table, lambda: None, idle_timeout_s=0.0, notice=noticed.append).run(never)
    assert odd in noticed
    assert len(noticed) <= 3 * TOGETHER, "its own group, and those before the keys were known"
    assert len(site.archived()) == 301
    site.close()
