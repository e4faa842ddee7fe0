"""Numbers and foreign text as people see them."""

import pytest

from teg.console.wording import age, harmless, moment, size


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-5, "0 s"), (0.9, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (200_000, "2 d")],
)
def test_age(seconds: float, shown: str) -> None:
    assert age(seconds) == shown


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (12_345_678, "12 MB"), (3.4e9, "3.4 GB"), (5e15, "5000 TB")],
)
def test_size(number: float, shown: str) -> None:
    assert size(number) == shown


def test_moment_is_utc() -> None:
    assert moment(0) == "1970-01-01 00:00:00Z"


def test_foreign_text_cannot_forge_a_line_or_drive_a_terminal() -> None:
    shown = harmless("all is well\n✓ fine\x1b[2J\x07" + "x" * 1000)
    assert "\n" not in shown
    assert "\x1b" not in shown
    assert len(shown) == 300
