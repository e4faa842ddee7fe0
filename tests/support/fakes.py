"""Reads with `ast` which classes of the tests stand for a port of ours, and which contract suites run them."""

import ast
from collections.abc import Iterator
from pathlib import Path

#: A port of fewer methods is fulfilled by chance.
TELLING = 3


def ports(root: Path) -> dict[str, frozenset[str]]:
    """Protocol of the domain → its methods."""
    return {
        node.name: _methods(node)
        for path in sorted((root / "teg" / "domain").rglob("*.py"))
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base) == "Protocol" for base in node.bases)
    }


def fakes(root: Path) -> set[str]:
    """ "file:class" of what says so by its name, or has all methods of a port that has three or more."""
    promised = [methods for methods in ports(root).values() if len(methods) >= TELLING]
    return {
        f"{path.relative_to(root)}:{node.name}"
        for path in sorted((root / "tests").rglob("*.py"))
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.ClassDef)
        and (node.name.startswith("Fake") or any(methods <= _methods(node) for methods in promised))
    }


def under_contract(root: Path) -> set[str]:
    """ "file:class" of all classes of the tests that a `test_*_contract.py` imports."""
    return {
        name for suite in sorted((root / "tests").rglob("test_*_contract.py")) for name in _imported(root, _tree(suite))
    }


def _imported(root: Path, suite: ast.AST) -> Iterator[str]:
    modules: dict[str, str] = {}
    for node in ast.walk(suite):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests"):
            folder = Path(*str(node.module).split("."))
            for alias in node.names:
                if (root / folder / f"{alias.name}.py").exists():
                    modules[alias.name] = str(folder / f"{alias.name}.py")
                else:
                    yield f"{folder.with_suffix('.py')}:{alias.name}"
    for node in ast.walk(suite):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            yield f"{modules[node.value.id]}:{node.attr}"


def _methods(node: ast.ClassDef) -> frozenset[str]:
    return frozenset(
        item.name for item in node.body if isinstance(item, ast.FunctionDef) and not item.name.startswith("__")
    )


def _tree(path: Path) -> ast.AST:
    return ast.parse(path.read_text(encoding="utf-8"))
