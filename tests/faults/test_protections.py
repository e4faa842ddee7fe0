"""Each protection is taken out, and the books of its scenario say what is lost; with it they agree to the row."""

import os
import re
from pathlib import Path

import pytest

from tests.support.loss_scenarios import a_world
from tests.support.protections import PROTECTIONS, Protection
from tests.support.running import PROJECT
from tests.support.storage_life import LedgerError

each_protection = pytest.mark.parametrize(
    "protection",
    [
        pytest.param(
            each,
            id=each.name,
            marks=[pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="mounts a disk")]
            if each.needs_root
            else [],
        )
        for each in PROTECTIONS
    ],
)


@each_protection
def test_with_it_nothing_is_lost(protection: Protection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with a_world(tmp_path, monkeypatch, protection.proofs) as world:
        protection.scenario(world)


@each_protection
def test_without_it_the_books_tell(protection: Protection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with a_world(tmp_path, monkeypatch, protection.proofs) as world:
        protection.take_out(monkeypatch)
        with pytest.raises(LedgerError) as told:
            protection.scenario(world)
        print(told.value)


def test_the_table_has_them_all() -> None:
    text = (PROJECT / "docs" / "reliability.md").read_text()
    table = re.search(r"<!-- protections -->\n(.*?)\n\n", text, re.DOTALL)
    assert table is not None
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1].splitlines()[2:]]
    assert [(row[0], row[1]) for row in rows] == [(each.name, f"`{each.where}`") for each in PROTECTIONS]
