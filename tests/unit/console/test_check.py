"""The list of checks as a whole."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from teg.console.check import findings, looked_at
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


def test_without_settings_it_says_what_may_be_the_reason_and_looks_at_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEG_ENV_FILE", str(tmp_path / "none.env"))
    monkeypatch.delenv("TB_HOST", raising=False)
    monkeypatch.setenv("TB_HOTS", "example.org")
    found = findings()
    lines = [str(each) for each in found]
    assert "✗ settings: TB_HOST is not set → sudo teg init asks for it (docs/settings.md)" in lines
    assert any("TB_HOTS is not a setting of this gateway; did you mean TB_HOST?" in line for line in lines)
    assert {"clock", "memory", "python", "sqlite"} <= {each.subject for each in found}
    assert found[-1].level is Level.SKIPPED
