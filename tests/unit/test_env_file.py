"""`.env` under the environment: its lines, what wins, and that it is read or refused."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teg import settings as settings_module
from teg.settings import InvalidSettings, Settings, read_env_file
from tests.support.environments import read, variables_read

ENV_FILE = """\
# a comment
TB_HOST=things.example.org
export TB_PORT=8883
  THINGSBOARD_DEVICE_NAME = "roof # 7"
TEG_CONTROLLER_ENVIRONMENT='A=1,B=2'
LOG_LEVEL=DEBUG # louder
TEG_RPC_DISABLED=
not a line
1BAD=name
=nothing
"""


def test_the_lines_of_an_env_file(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text(ENV_FILE)
    assert read_env_file(path) == {
        "TB_HOST": "things.example.org",
        "TB_PORT": "8883",
        "THINGSBOARD_DEVICE_NAME": "roof # 7",
        "TEG_CONTROLLER_ENVIRONMENT": "A=1,B=2",
        "LOG_LEVEL": "DEBUG",
        "TEG_RPC_DISABLED": "",
    }


def test_a_missing_env_file_is_fine(tmp_path: Path) -> None:
    assert read_env_file(tmp_path / ".env") == {}


def test_windows_line_ends_and_a_byte_order_mark_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"\xef\xbb\xbfTB_HOST=h\r\nTB_PORT=1\r\n")
    assert read_env_file(tmp_path / ".env") == {"TB_HOST": "h", "TB_PORT": "1"}


@pytest.mark.parametrize("content", [b"TB_HOST=\xff\xfe", None])
def test_an_env_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / ".env"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(InvalidSettings, match=r"\.env cannot be read"):
        read_env_file(path)


def test_the_environment_wins_over_the_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("TB_HOST=from-file\nTB_PORT=1\nTHINGSBOARD_DEVICE_NAME=file\n")
    as_checkout(tmp_path, monkeypatch)
    monkeypatch.setenv("TB_HOST", "from-process")
    monkeypatch.setenv("THINGSBOARD_DEVICE_NAME", "")
    found = Settings.from_environment()
    assert found.tb_host == "from-process"
    assert found.tb_port == 1
    assert found.device_name != "file", "set but empty means none, as compose files write it"


def as_checkout(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the program stood in `directory`, with nothing set by whoever runs the tests."""
    (directory / "pyproject.toml").touch()
    monkeypatch.setattr(settings_module, "PROGRAM", directory)
    for name in variables_read():
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("library", ["lib/python3.11/site-packages", "lib/python3/dist-packages", "opt/teg"])
def test_an_installed_program_has_neither_data_nor_env_file_in_the_library(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / library
    directory.mkdir(parents=True)
    (directory / ".env").write_text("TB_HOST=from-file\nTB_PORT=1\n")
    as_checkout(directory, monkeypatch)  # some packages litter the library with files such as `pyproject.toml`
    if library == "opt/teg":
        (directory / "pyproject.toml").unlink()
    with pytest.raises(InvalidSettings, match="TB_HOST is not set"):
        Settings.from_environment()
    assert read().data_path == Path("/var/lib/teg")


@given(st.binary(max_size=200))
def test_any_env_file_is_read_or_refused(data: bytes) -> None:
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"teg-env-{os.getpid()}"
    path.write_bytes(data)
    try:
        found = read_env_file(path)
        assert all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) for name in found)
    except InvalidSettings:
        pass
    finally:
        path.unlink()


def test_a_misspelled_name_is_said_with_the_setting_that_is_missing() -> None:
    with pytest.raises(InvalidSettings, match="TB_HOST is not set") as refused:
        Settings.from_environment({"tb_host": "secret.example.org", "TB_PROT": "8883"})
    assert refused.value.notices == (
        "TB_PROT is not a setting of this gateway; did you mean TB_PORT?",
        "tb_host is not a setting of this gateway; did you mean TB_HOST?",
    )
    assert all(notice in str(refused.value) for notice in refused.value.notices)
    assert "secret" not in str(refused.value)


def test_a_line_that_is_no_setting_is_named_by_its_number_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "teg.env"
    path.write_text("# a comment\n\nTB_HOST: secret.example.org\nTB_PORT=8883\nexport TB_TLS off\n")
    monkeypatch.setenv("TEG_ENV_FILE", str(path))
    for name in ("TB_HOST", "TB_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InvalidSettings, match="TB_HOST is not set") as refused:
        Settings.from_environment()
    said = [notice for notice in refused.value.notices if "NAME=value" in notice]
    assert said == [f"line {number} of {path} is not read: it is not of the form NAME=value" for number in (3, 5)]
    assert "secret" not in str(refused.value)
