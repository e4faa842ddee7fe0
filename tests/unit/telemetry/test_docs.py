"""Every line of the tables in docs/telemetry.md is what the code does, and the numbers of the page are its numbers."""

import re
from pathlib import Path

import pytest

from teg.adapters.gateway_db import eviction
from teg.adapters.inbox import hostile_file
from teg.domain.server import rate_limits, reconnect
from teg.domain.server.wire import MAX_PAYLOAD_BYTES, MAX_UNACKNOWLEDGED
from teg.domain.telemetry import in_flight, poison_messages, reporting, validation
from teg.domain.telemetry.validation import Record, SetAside, validate

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "telemetry.md").read_text()


def table(name: str) -> list[list[str]]:
    """The rows of the table after the marker, each a list of its cells."""
    text = PAGE.split(f"<!-- {name}: executed", 1)[1]
    lines = [line for line in text.split("\n\n", 1)[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def judged(text: str) -> Record | SetAside:
    return validate(1, None, bytearray(text.encode()))


@pytest.mark.parametrize(("written", "sent", "rule"), table("set-right"))
def test_numbers_are_set_right_as_the_page_says(written: str, sent: str, rule: str) -> None:
    text = f'{{"ts": 1767225600123, "values": {{"x": {written.strip("`")}, "y": 0}}}}'
    record = judged(text)
    assert isinstance(record, Record), rule
    published = record.message if record.payload is None else record.payload
    found = re.search(r'"x": ?(.*), ?"y"', published)
    assert (found[1] if found else "left out") == sent.strip("`")
    assert record.message == text


@pytest.mark.parametrize(("row", "reason"), table("set-aside"))
def test_rows_are_set_aside_as_the_page_says(row: str, reason: str) -> None:
    verdict = judged(row.strip("`"))
    assert isinstance(verdict, SetAside)
    assert verdict.reason.startswith(reason)


def test_the_tables_are_there() -> None:
    assert len(table("set-right")) >= 12
    assert len(table("set-aside")) >= 11


@pytest.mark.parametrize(
    ("said", "number"),
    [
        ("at most {:,} bytes", MAX_PAYLOAD_BYTES),
        ("at most {} messages on the way", MAX_UNACKNOWLEDGED),
        ("at most {} a minute", reporting.MAX_LINES_A_MINUTE),
        ("up to {} decimals are kept", validation.SERVER_DECIMALS),
        ("rounded to {}", validation.MAX_DECIMALS),
        ("keys over {} characters", validation.MAX_KEY_CHARACTERS),
        ("records over {:,} bytes", validation.MAX_RECORD_BYTES),
        ("nested deeper than {} levels", validation.MAX_NESTING),
        ("over {} MiB", hostile_file.MAX_VALUE_BYTES >> 20),
        ("the first {} KiB", hostile_file.BEGINNING_BYTES >> 10),
        ("no PUBACK for {:.0f} s", in_flight.ACK_TIMEOUT_S),
        ("{:.0f} % of each limit at once", rate_limits.SHARE * 100),
        ("{:.1f} % of what it allows", rate_limits.REFILL * 100),
        ("for at most {:.0f} s", rate_limits.UNKNOWN_S),
    ],
)
def test_the_numbers_of_the_page_are_those_of_the_code(said: str, number: float) -> None:
    assert said.format(number) in " ".join(PAGE.split())


def test_numbers_in_words() -> None:
    assert (poison_messages.STRIKES, "set aside after three closes" in PAGE) == (3, True)
    assert (eviction.DEAD_LETTER_SHARE, "beyond a tenth of the quota" in PAGE) == (10, True)
    assert (reconnect.RECONNECT.cap_s, "at least every 30 s" in PAGE) == (29.0, True)


def test_quoted_messages_are_the_ones_in_the_code() -> None:
    root = Path(__file__).resolve().parents[3]
    code = "".join(
        path.read_text() for room in ("teg/domain", "teg/adapters", "producers") for path in (root / room).rglob("*.py")
    )
    code = re.sub(r'"\s*\n\s*f?"', "", code)
    for text in (
        "the inbox cannot be read now: ",
        "is a view or carries a trigger",
        "the server does not know this access token (CONNACK 5)",
        "most likely another program or a second device",
        "no connection to the server: ",
        "most likely a device of this name already exists",
    ):
        assert text in code
        assert text.strip(": ").split("'")[-1] in PAGE
