"""docs/thin-links.md: the months are what the bytes in its first table come to."""

import re
from dataclasses import fields
from pathlib import Path

from bench.thin_links import Costs, lines

PAGE = (Path(__file__).parents[3] / "docs" / "thin-links.md").read_text()


def table(name: str) -> list[str]:
    """The lines of the table below the comment that begins with `name`."""
    found = re.search(rf"<!-- {name}: [^>]*-->\n((?:\|.*\n)+)", PAGE)
    assert found, name
    return found[1].splitlines()


def test_the_months_follow_from_the_measured_bytes() -> None:
    bytes_of = [float(row.rpartition("|")[0].rpartition("|")[2]) for row in table("costs")[2:]]
    assert len(bytes_of) == len(fields(Costs))
    told = dict(zip(("connection", "ping", "alone", "alone_short", "with_blanks", "one_value", "per_record", "proof"),
                    bytes_of, strict=True))  # fmt: skip
    expected = list(lines(Costs(**told)))
    assert [*table("costs"), "", *table("months")] == expected
