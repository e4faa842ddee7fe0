"""The walks of docs/architecture.md: every file they enter is there, and has what they name."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
WALKS = PAGE[PAGE.index("## Three walks") : PAGE.index("## The process")]
STEPS = re.findall(r"`([\w/]+\.py)` · `(\w+)`", WALKS)


def names_in(path: Path) -> set[str]:
    """Of all classes and functions, also those inside others."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


@pytest.mark.parametrize(("file", "name"), STEPS)
def test_what_a_step_names_is_there(file: str, name: str) -> None:
    assert name in names_in(ROOT / file)


def test_every_file_named_on_the_page_exists() -> None:
    named = set(re.findall(r"`((?:teg|tasks|producers|tests)/[\w/]+\.py)`", PAGE))
    assert len(named) > 25
    assert [file for file in sorted(named) if not (ROOT / file).exists()] == []


def test_each_walk_is_numbered_without_a_gap() -> None:
    for walk in re.split(r"^### ", WALKS, flags=re.MULTILINE)[1:]:
        numbers = [int(number) for number in re.findall(r"^(\d+)\. ", walk, flags=re.MULTILINE)]
        assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) >= 10, walk[:40]
