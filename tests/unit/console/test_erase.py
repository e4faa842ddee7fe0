"""`teg erase`: what is the gateway's goes, everything else stays, and never beside a running gateway."""

import fcntl
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from teg.console.main import main


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "teg"
    for name in (
        *("gateway.db", "gateway.db-wal", "gateway.db-shm", "tb_access_token", "last_launched_controller_version.txt"),
        *("huey_data/huey.db", "ota/mirror.git/HEAD", "quarantine/x/gateway.db", "controller/communication_queue.db"),
        *("controller-logs/a.log", "holiday.jpg"),
    ):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("secret-content")
    for name, value in {"TB_HOST": "h", "TB_PORT": "1", "TEG_DATA_PATH": str(path)}.items():
        monkeypatch.setenv(name, value)
    return path


def erase(*options: str, answer: str = "") -> Result:
    return CliRunner().invoke(main, ["erase", *options], input=answer)


def left(path: Path) -> set[str]:
    return {str(found.relative_to(path)) for found in path.rglob("*") if not found.is_dir()}


def test_the_gateways_own_goes_and_the_rest_stays(data: Path) -> None:
    done = erase(answer="y\n")
    assert done.exit_code == 0, done.output
    assert left(data) == {"controller/communication_queue.db", "controller-logs/a.log", "holiday.jpg"}
    assert "teg erase --controller" in done.output and "revoke" in done.output


def test_the_controllers_goes_when_it_is_said(data: Path) -> None:
    (data / "holiday.jpg").unlink()
    assert erase("--yes", "--controller").exit_code == 0
    assert not data.exists()


def test_without_a_yes_nothing_goes(data: Path) -> None:
    before = left(data)
    for answer in ("n\n", "\n", ""):
        assert erase(answer=answer).exit_code != 0
    assert left(data) - {"gateway.lock"} == before


def test_never_beside_a_running_gateway(data: Path) -> None:
    before = left(data)
    with (data / "gateway.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = erase("--yes")
    assert done.exit_code != 0 and "is running" in done.output
    assert left(data) == before | {"gateway.lock"}


def test_links_go_and_what_they_name_stays(data: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "token").write_text("not ours")
    (data / "tb_access_token").unlink()
    (data / "tb_access_token").symlink_to(elsewhere / "token")
    (data / "quarantine" / "link").symlink_to(elsewhere)
    assert erase("--yes").exit_code == 0
    assert (elsewhere / "token").read_text() == "not ours"
    assert not os.path.lexists(data / "tb_access_token")


def test_a_token_elsewhere_is_erased_and_overwritten(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("secret-token")
    os.link(token, tmp_path / "same-file")
    monkeypatch.setenv("THINGSBOARD_ACCESS_TOKEN", str(token))
    assert erase("--yes").exit_code == 0
    assert not token.exists() and (tmp_path / "same-file").read_bytes() == bytes(len("secret-token"))


def test_twice_is_harmless(data: Path) -> None:
    assert erase("--yes").exit_code == 0
    again = erase("--yes")
    assert again.exit_code == 0 and "nothing of the gateway" in again.output
