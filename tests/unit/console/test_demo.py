"""`teg demo` says what it lacks; what it shows is in tests/system/test_demo.py."""

from importlib import metadata

import pytest
from click.testing import CliRunner

from teg.console import demo

LINES = ["orjson>=3", "rich>=13; extra == 'demo'", 'trustme>=1.2; extra == "demo"', "pytest>=8; extra == 'dev'"]


def test_what_is_missing_is_named_as_pip_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def distribution(name: str) -> None:
        if name == "trustme":
            raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", lambda name: LINES)
    monkeypatch.setattr(metadata, "distribution", distribution)
    done = CliRunner().invoke(demo.demo, [])
    assert done.exit_code == 1
    assert "-m pip install 'trustme>=1.2'\n" in done.output


def test_nothing_is_missing_here() -> None:
    assert list(demo.missing_libraries()) == []
    assert [line for line in metadata.requires("teg-gateway") or () if "extra == 'demo'" in line.replace('"', "'")]


@pytest.mark.parametrize("seconds", ["0", "-3", "soon"])
def test_a_wrong_time_is_said(seconds: str) -> None:
    assert CliRunner().invoke(demo.demo, ["--seconds", seconds]).exit_code == 2
