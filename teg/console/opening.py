"""What every command needs first: the settings, and what the running gateway has to say; opened with plain words."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import orjson

from teg.adapters import status_socket
from teg.adapters.gateway_db.database import Database
from teg.adapters.gateway_db.maintenance import ArchiveMaintenance
from teg.domain.errors import Unavailable
from teg.settings import InvalidSettings, Settings

#: What only the gateway's own command line may know (`teg run --tb-host`), and who asks it need not.
ELSEWHERE = {"TB_HOST": "elsewhere", "TB_PORT": "1"}


def open_settings(server_needed: bool = True) -> Settings:
    """`server_needed` False: for who only needs to know where the data are."""
    try:
        return Settings.from_environment(defaults=None if server_needed else ELSEWHERE)
    except InvalidSettings as problems:
        raise click.ClickException(str(problems)) from problems


@contextmanager
def open_archive(settings: Settings) -> Iterator[ArchiveMaintenance]:
    """Read-only, so beside a running gateway, too."""
    path = settings.data_path / "gateway.db"
    if not is_readable(path):
        raise click.ClickException(f"there is no {path}: the gateway has not run with these settings yet")
    database = Database(path, read_only=True)
    try:
        yield ArchiveMaintenance(database)
    except Unavailable as reason:
        raise click.ClickException(str(reason)) from reason
    finally:
        database.close()


def is_readable(path: Path) -> bool:
    """False where there is nothing; what others own ends the command with what to do about it."""
    try:
        return path.exists()
    except PermissionError as error:
        raise click.ClickException(f"{path} belongs to another user: use sudo") from error


def is_running(data_path: Path) -> bool:
    """True while a consumer holds the lock of this data directory."""
    try:
        with (data_path / "gateway.lock").open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except PermissionError as error:
        raise click.ClickException(f"{data_path} belongs to another user: use sudo") from error
    except OSError:
        return True
    return False


def ask_gateway(data_path: Path) -> dict[str, Any] | None:
    """The running gateway's own account; None where there is none to ask. Raises Unavailable when it hangs."""
    answer = status_socket.ask(data_path)
    return None if answer is None else dict(orjson.loads(answer))
