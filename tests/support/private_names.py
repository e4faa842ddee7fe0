"""Reads with `ast` where tests reach past what the users of a class or module of ours can see."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.support.architecture import ROOMS, source_files

#: Of the standard library: documented, in spite of their names.
NOT_PRIVATE = {"_exit", "_fields", "_replace", "_asdict"}
#: Calls that take an attribute's name as text.
BY_TEXT = {"setattr", "getattr", "delattr", "hasattr"}


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in NOT_PRIVATE


def private_names(root: Path) -> frozenset[str]:
    """Of everything that is shipped: attributes, methods, functions and constants."""
    rooms = tuple(room for room in ROOMS if room not in ("tests", "bench"))
    return frozenset(name for path in source_files(root, rooms) for name in _defined(_tree(path)))


def reaches(root: Path) -> dict[str, list[str]]:
    """Test file → lines that do it, "line: names" each; what a file defines itself is its own."""
    ours = private_names(root)
    found: dict[str, list[str]] = {}
    for path in sorted((root / "tests").rglob("*.py")):
        tree = _tree(path)
        foreign = ours - set(_defined(tree))
        lines: dict[int, list[str]] = {}
        for line, name in _used(tree):
            if name in foreign:
                lines.setdefault(line, []).append(name)
        if lines:
            found[str(path.relative_to(root))] = [
                f"{line}: {', '.join(names)}" for line, names in sorted(lines.items())
            ]
    return found


def _defined(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_self(node.value):
            names = [node.attr]
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names = [node.id]
        yield from filter(private, names)


def _used(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not _is_self(node.value):
            yield node.lineno, node.attr
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in BY_TEXT:
            texts = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            yield from ((node.lineno, text.rpartition(".")[2]) for text in texts if isinstance(text, str))


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def _tree(path: Path) -> ast.AST:
    return ast.parse(path.read_text(encoding="utf-8"))
