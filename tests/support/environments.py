"""Settings out of an environment of a few variables, and the names of all variables that are read."""

import ast
import re
from pathlib import Path

import pytest

from teg.settings import InvalidSettings, Settings

ROOT = Path(__file__).resolve().parents[2]


REQUIRED = {"TB_HOST": "things.example.org", "TB_PORT": "8883"}


def read(**variables: str) -> Settings:
    return Settings.from_environment({**REQUIRED, **variables})


def problems(**variables: str) -> list[str]:
    with pytest.raises(InvalidSettings) as raised:
        read(**variables)
    return raised.value.problems


def variables_read() -> set[str]:
    """The names that `_Reader` asks for, and its part that is about the connection."""
    return _asked("settings.py", "_Reader") | _asked("connection_settings.py", "ConnectionVariables")


def _asked(file: str, name: str) -> set[str]:
    tree = ast.parse((ROOT / "teg" / file).read_text())
    reader = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    return {
        call.args[0].value
        for call in ast.walk(reader)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.args
        and isinstance(call.args[0], ast.Constant)
        and isinstance(call.args[0].value, str)
        and re.fullmatch(r"[A-Z][A-Z0-9_]+", call.args[0].value)
    }
