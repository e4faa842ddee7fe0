"""The list of checks as a whole."""

import sqlite3
from collections.abc import Iterator
from typing import cast

import pytest

from teg.console.check import looked_at
from teg.console.checks.finding import Finding, Level, Site, fine
from teg.domain.errors import Refused, Unavailable
from teg.settings import Settings


@pytest.mark.parametrize(
    "error",
    [OSError(5, "Input/output error"), sqlite3.OperationalError("no such table"), Unavailable("x"), Refused("y")],
)
def test_a_check_that_cannot_look_is_a_line_like_any_other(error: Exception) -> None:
    def check_card_wear(site: Site) -> Iterator[Finding]:
        yield fine("card wear", "seen so far")
        raise error

    first, second = looked_at(check_card_wear, Site(cast(Settings, None), None))
    assert first.level is Level.FINE
    assert (second.level, second.subject) == (Level.WARNING, "card wear")
    assert str(error) in second.text
