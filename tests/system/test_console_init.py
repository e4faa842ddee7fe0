"""`teg init` as a person uses it: asked, tried, written; nothing is written before the trial was seen."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from teg.console.init import with_lines
from teg.settings import read_env_file
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.running import CLOSED_PORT, PROJECT

TEG = Path(sys.executable).parent / "teg"
EXAMPLE = (PROJECT / ".env.example").read_text()


@pytest.fixture
def server() -> Iterator[ThingsBoard]:
    with ThingsBoard() as server:
        server.add_device("pi", token="T1-secret")
        yield server


def init(file: Path, *answers: object, data: Path) -> subprocess.CompletedProcess[str]:
    if not file.exists():
        file.write_text(f"{EXAMPLE}TEG_DATA_PATH={data}\nTEG_CONTROLLER_RUNTIME=none\n")
    text = "".join(f"{answer}\n" for answer in answers)
    return subprocess.run([TEG, "init", "--file", file], input=text, capture_output=True, text=True, timeout=60)


def test_a_token_is_tried_and_written(server: ThingsBoard, tmp_path: Path) -> None:
    file, data = tmp_path / "teg.env", tmp_path / "data"
    done = init(file, server.host, "n", server.port, "token", "T1-secret", data=data)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "✓ access token: the server takes it" in done.stdout
    written = read_env_file(file)
    assert (written["TB_HOST"], written["TB_PORT"], written["TB_TLS"]) == (server.host, str(server.port), "off")
    assert written["TEG_CONTROLLER_RUNTIME"] == "none", "what else stood there stays"
    token = data / "tb_access_token"
    assert token.read_text() == "T1-secret"
    assert token.stat().st_mode & 0o777 == 0o600
    assert "T1-secret" not in done.stdout + file.read_text()


def test_a_wrong_token_is_told_before_anything_is_written(server: ThingsBoard, tmp_path: Path) -> None:
    file, data = tmp_path / "teg.env", tmp_path / "data"
    done = init(file, server.host, "n", server.port, "token", "WRONG", "n", data=data)
    assert done.returncode == 1
    assert "✗ access token: the server does not know this access token" in done.stdout
    assert "TB_HOST=thingsboard.example.org" in file.read_text()
    assert not data.exists()


def test_without_a_server_it_can_be_written_all_the_same(tmp_path: Path) -> None:
    file = tmp_path / "teg.env"
    done = init(file, "127.0.0.1", "n", CLOSED_PORT, "keys", "KEY", "SECRET", "y", data=tmp_path / "data")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "✗ server port: 127.0.0.1:1 cannot be reached" in done.stdout
    assert read_env_file(file)["THINGSBOARD_PROVISION_DEVICE_SECRET"] == "SECRET"
    assert "SECRET" not in done.stdout


def test_a_second_time_offers_what_is_known(server: ThingsBoard, tmp_path: Path) -> None:
    file, data = tmp_path / "teg.env", tmp_path / "data"
    init(file, server.host, "n", server.port, "token", "T1-secret", data=data)
    before = file.read_text()
    done = init(file, "", "", "", "later", data=data)
    assert done.returncode == 0, done.stdout + done.stderr
    assert file.read_text() == before


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "TB_HOST=h\n"),
        ("A=1", "A=1\nTB_HOST=h\n"),
        ("TB_HOST=old\nA=1\n", "TB_HOST=h\nA=1\n"),
        ("#TB_HOST=\nA=1\n", "TB_HOST=h\nA=1\n"),
        ("#TB_HOST=\nexport TB_HOST = old\n", "#TB_HOST=\nTB_HOST=h\n"),
        ("NOT_TB_HOST=1\n", "NOT_TB_HOST=1\nTB_HOST=h\n"),
    ],
)
def test_a_line_takes_its_place(text: str, expected: str) -> None:
    assert with_lines(text, {"TB_HOST": "h"}) == expected


def test_what_an_answer_holds_is_not_taken_for_a_pattern() -> None:
    assert with_lines("TB_HOST=x\n", {"TB_HOST": r"\1\g<0>"}) == "TB_HOST=\\1\\g<0>\n"
