"""Which directories are private and shared, and that the two never meet: by name, by link or by bind mount."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from teg import places
from teg.settings import InvalidSettings, Settings

REQUIRED = {"TB_HOST": "things.example.org", "TB_PORT": "8883"}


def read(**variables: object) -> Settings:
    return Settings.from_environment({**REQUIRED, **{name: str(value) for name, value in variables.items()}})


def refusal(**variables: object) -> str:
    with pytest.raises(InvalidSettings) as raised:
        read(**variables)
    return str(raised.value)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    for name in ("private", "shared"):
        (tmp_path / name).mkdir()
    return tmp_path


# --- the usual layout --------------------------------------------------------------------------------------------


def test_private_and_shared_are_apart_by_default(site: Path) -> None:
    found = read(TEG_DATA_PATH=site / "private")
    assert found.data_path == site / "private"
    assert found.controller_data_path == site / "private" / "controller"
    assert found.controller_logs_path == site / "private" / "controller-logs"
    assert found.access_token_path == site / "private" / "tb_access_token"
    assert found.queue_url == f"sqlite://{site}/private/huey_data/huey.db"
    assert found.shared_before is None


def test_systemd_says_where_the_data_are(site: Path) -> None:
    assert read(STATE_DIRECTORY=site / "private").data_path == site / "private"
    assert read(STATE_DIRECTORY=site / "private", TEG_DATA_PATH=site / "x").data_path == site / "x"


def test_logs_inside_the_shared_directory_go_to_their_default(site: Path) -> None:
    shared = site / "shared"
    found = read(TEG_DATA_PATH=site / "private", TEG_CONTROLLER_DATA_PATH=shared, TEG_CONTROLLER_LOGS_PATH=shared / "l")
    assert found.controller_logs_path == site / "private" / "controller-logs"


def test_data_of_the_first_version_beside_the_program_are_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "gateway.db").touch()
    monkeypatch.setattr("teg.settings.PROGRAM", tmp_path)
    assert f"{tmp_path}/gateway.db is of an earlier version" in refusal()
    assert read(TEG_DATA_PATH=tmp_path / "elsewhere").data_path == tmp_path / "elsewhere"
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "gateway.db").touch()
    assert read().data_path == tmp_path / "data"


# --- the reference's layout --------------------------------------------------------------------------------------


def test_one_directory_for_both_stays_the_controllers(site: Path) -> None:
    both = site / "shared"
    found = read(TEG_DATA_PATH=both, TEG_CONTROLLER_DATA_PATH=both, TEG_CONTROLLER_LOGS_PATH=both / "logs")
    assert (found.data_path, found.controller_data_path) == (site / "shared-private", both)
    assert found.controller_logs_path == site / "shared-private" / "controller-logs"
    assert found.access_token_path == site / "shared-private" / "tb_access_token"
    assert (found.shared_before, found.legacy_data_path) == (both, both)


def test_by_whatever_name_it_is_the_same_directory(site: Path) -> None:
    (site / "link").symlink_to("shared")
    found = read(TEG_DATA_PATH=site / "link", TEG_CONTROLLER_DATA_PATH=site / "shared")
    assert found.data_path == site / "shared-private"


def test_an_inbox_shows_the_layout_where_only_one_variable_is_set(site: Path) -> None:
    (site / "shared" / "communication_queue.db").touch()
    found = read(TEG_DATA_PATH=site / "shared")
    assert (found.data_path, found.controller_data_path) == (site / "shared-private", site / "shared")


def test_the_controller_cannot_undo_it_by_removing_its_inbox(site: Path) -> None:
    """Else the next start would take what the controller put there for the gateway's own."""
    (site / "shared-private").mkdir()
    (site / "shared-private" / places.RECORD).write_text(f"{site}/shared\n")
    assert read(TEG_DATA_PATH=site / "shared").data_path == site / "shared-private"


def test_systemds_directory_takes_the_private_files(site: Path) -> None:
    both = site / "shared"
    found = read(TEG_DATA_PATH=both, TEG_CONTROLLER_DATA_PATH=both, STATE_DIRECTORY=site / "private")
    assert (found.data_path, found.controller_data_path) == (site / "private", both)
    within_it = read(TEG_DATA_PATH=both, TEG_CONTROLLER_DATA_PATH=both, STATE_DIRECTORY=both)
    assert within_it.data_path == site / "shared-private"


def test_files_of_the_settings_move_out_too(site: Path) -> None:
    both = site / "shared"
    (both / "ca.pem").touch()
    named = {"THINGSBOARD_ACCESS_TOKEN": both / "token", "THINGSBOARD_CA_CERT": both / "ca.pem"}
    found = read(TEG_DATA_PATH=both, TEG_CONTROLLER_DATA_PATH=both, **named)
    assert found.access_token_path == site / "shared-private" / "token"
    assert found.ca_cert == site / "shared-private" / "ca.pem"
    assert (both / "token", found.access_token_path) in found.former_files
    (both / "ca.pem").rename(site / "ca.pem")
    (site / "shared-private").mkdir()
    (site / "ca.pem").rename(site / "shared-private" / "ca.pem")
    assert read(TEG_DATA_PATH=both, TEG_CONTROLLER_DATA_PATH=both, **named).ca_cert == found.ca_cert


def test_what_cannot_move_out_is_refused(site: Path) -> None:
    both = site / "shared"
    said = refusal(
        TEG_DATA_PATH=both, TEG_CONTROLLER_DATA_PATH=both, TEG_CONTROLLER_GIT_PATH=both / "controller" / ".git"
    )
    assert "TEG_CONTROLLER_DATA_PATH" in said and "TEG_CONTROLLER_GIT_PATH" in said


# --- overlaps that are wrong settings ----------------------------------------------------------------------------

#: what is done in the site → variables that then must be refused
GAMES: dict[str, Callable[[Path], dict[str, object]]] = {
    "the shared directory holds the private one": lambda site: {
        "TEG_DATA_PATH": site / "shared" / "gateway",
        "TEG_CONTROLLER_DATA_PATH": site / "shared",
    },
    "the shared directory is the queue's": lambda site: {"TEG_CONTROLLER_DATA_PATH": site / "private" / "huey_data"},
    "it lies in the quarantine": lambda site: {"TEG_CONTROLLER_DATA_PATH": site / "private" / "quarantine" / "x"},
    "the logs hold everything": lambda site: {"TEG_CONTROLLER_LOGS_PATH": site},
    "the logs are the private directory": lambda site: {"TEG_CONTROLLER_LOGS_PATH": site / "private"},
    "the logs lie in the downloads": lambda site: {"TEG_CONTROLLER_LOGS_PATH": site / "private" / "ota" / "logs"},
    "the token is shared": lambda site: {
        "TEG_CONTROLLER_DATA_PATH": site / "shared",
        "THINGSBOARD_ACCESS_TOKEN": site / "shared" / "token",
    },
    "the certificate is shared": lambda site: {
        "TEG_CONTROLLER_DATA_PATH": site / "shared",
        "THINGSBOARD_CA_CERT": _made(site / "shared" / "ca.pem"),
    },
    "the commands are shared": lambda site: {
        "TEG_CONTROLLER_DATA_PATH": site / "shared",
        "TEG_RPC_RUN_COMMAND": _made(site / "shared" / "commands"),
    },
    "the queue is shared": lambda site: {
        "TEG_CONTROLLER_DATA_PATH": site / "shared",
        "TEG_QUEUE_URL": f"sqlite://{site}/shared/q/huey.db",
    },
    "the repository is shared": lambda site: {
        "TEG_CONTROLLER_DATA_PATH": site / "shared",
        "TEG_CONTROLLER_GIT_PATH": site / "shared" / "repository" / ".git",
    },
    "it lies in the repository": lambda site: {
        "TEG_CONTROLLER_DATA_PATH": site / "repository" / ".git" / "hooks",
        "TEG_CONTROLLER_GIT_PATH": site / "repository" / ".git",
    },
    "the engine's socket is mounted": lambda site: {"TEG_CONTROLLER_MOUNTS": "/var/run/docker.sock:/docker.sock"},
    "a mount holds everything": lambda site: {"TEG_CONTROLLER_MOUNTS": "/:/host:ro"},
    "a mount holds the private files": lambda site: {"TEG_CONTROLLER_MOUNTS": f"/srv:/srv,{site}/private:/x"},
    "the program is shared": lambda site: {"TEG_CONTROLLER_MOUNTS": f"{Path(places.__file__).parents[1]}:/x"},
    "a part of the program is shared": lambda site: {
        "TEG_CONTROLLER_MOUNTS": f"{Path(places.__file__).parent}/domain:/x"
    },
    "Python is shared": lambda site: {"TEG_CONTROLLER_MOUNTS": f"{Path(os.__file__).parents[1]}:/x"},
    "a link leads to the private files": lambda site: {
        "TEG_CONTROLLER_DATA_PATH": _linked(site / "innocent", site / "private" / "huey_data")
    },
    "a link above leads there": lambda site: {
        "TEG_CONTROLLER_DATA_PATH": _linked(site / "innocent", site / "private") / "ota"
    },
    "a link on the token's way lies in the shared directory": lambda site: {
        "TEG_CONTROLLER_DATA_PATH": site / "shared",
        "THINGSBOARD_ACCESS_TOKEN": _linked(site / "shared" / "out", site / "private") / "token",
    },
    "the private directory is reached through the shared one": lambda site: {
        "TEG_CONTROLLER_DATA_PATH": site / "shared",
        "TEG_DATA_PATH": _linked(site / "shared" / "out", site / "private"),
    },
}


def _made(path: Path) -> Path:
    path.touch()
    return path


def _linked(link: Path, target: Path) -> Path:
    link.symlink_to(target)
    return link


@pytest.mark.parametrize("game", GAMES)
def test_an_overlap_is_a_wrong_setting(game: str, site: Path) -> None:
    said = refusal(**{"TEG_DATA_PATH": site / "private", **GAMES[game](site)})
    assert "is what the controller sees, but it is, holds or lies in what is the gateway's alone" in said
    assert len(said.splitlines()) == 2, "one line for one overlap"


def test_all_overlaps_come_in_one_message(site: Path) -> None:
    said = refusal(
        TEG_DATA_PATH=site / "private",
        TEG_CONTROLLER_DATA_PATH=site / "private" / "ota",
        TEG_CONTROLLER_LOGS_PATH=site / "private" / "quarantine",
        TEG_CONTROLLER_MOUNTS=f"{site}/private/gateway.db:/a,{site}:/b",
        TB_PORT="x",
    )
    assert len(said.splitlines()) == 6, said


def test_what_only_lies_beside_is_fine(site: Path) -> None:
    found = read(
        TEG_DATA_PATH=site / "private",
        TEG_CONTROLLER_DATA_PATH=site / "private" / "ota-not",
        TEG_CONTROLLER_MOUNTS=f"{site}/shared:/maps:ro",
        TEG_CONTROLLER_GIT_PATH=site / "repository" / ".git",
    )
    assert found.controller_data_path == site / "private" / "ota-not"


# --- mounts ------------------------------------------------------------------------------------------------------


@contextmanager
def bound(source: Path, target: Path) -> Iterator[None]:
    target.mkdir(parents=True)
    subprocess.run(["mount", "--bind", source, target], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", target], check=True)


needs_mounts = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@needs_mounts
@pytest.mark.parametrize("inside", ["", "quarantine", "quarantine/deeper"])
def test_a_bind_mount_hides_nothing(inside: str, site: Path) -> None:
    """The last one has neither a name nor an inode in common with anything private."""
    (site / "private" / "quarantine" / "deeper").mkdir(parents=True)
    with bound(site / "private" / inside, site / "innocent"):
        said = refusal(TEG_DATA_PATH=site / "private", TEG_CONTROLLER_LOGS_PATH=site / "innocent")
    assert "TEG_CONTROLLER_LOGS_PATH" in said


@needs_mounts
def test_a_bind_mount_of_something_else_is_fine(site: Path) -> None:
    with bound(site / "shared", site / "innocent"):
        found = read(TEG_DATA_PATH=site / "private", TEG_CONTROLLER_LOGS_PATH=site / "innocent")
    assert found.controller_logs_path == site / "innocent"


@needs_mounts
def test_the_same_directory_by_a_bind_mount_is_the_references_layout(site: Path) -> None:
    with bound(site / "shared", site / "other"):
        found = read(TEG_DATA_PATH=site / "shared", TEG_CONTROLLER_DATA_PATH=site / "other")
    assert found.shared_before == site / "other"
