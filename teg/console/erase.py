"""`teg erase`: the device forgets what was the gateway's own, before it is handed on, sold or thrown away."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click

from teg.console.opening import open_settings
from teg.places import PRIVATE_DIRECTORIES, PRIVATE_FILES, RECORD
from teg.settings import Settings

_DATABASE_ENDINGS = ("", "-wal", "-shm", "-journal")
_LOCK = "gateway.lock"


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--controller", is_flag=True, help="Also erase the controller's directories: inbox, files, logs.")
def erase(yes: bool, controller: bool) -> None:
    """Erase the access token, the archive, the queue and fetched software of this device; they cannot be had back.

    The gateway has to be stopped. Records that were not sent are lost. What this cannot reach is named at the end.
    """
    settings = open_settings()
    with _exclusive(settings.data_path):
        found = [path for path in dict.fromkeys(targets(settings, controller)) if os.path.lexists(path)]
        for path in found:
            click.echo(f"  {path}")
        if not found:
            click.echo(f"nothing of the gateway is in {settings.data_path}")
        elif not yes:
            click.confirm("Erase these for good?", abort=True)
        for path in found:
            remove(path)
    for path in (settings.data_path / _LOCK, settings.data_path):
        with suppress(OSError):  # the directory stays where something else is in it
            path.rmdir() if path.is_dir() else path.unlink()
    click.echo("\n".join(["erased. Not reached:", *not_reached(settings, controller)]))


def targets(settings: Settings, controller: bool) -> Iterator[Path]:
    """What is the gateway's, by its names: other files in its directory are nobody's business."""
    data = settings.data_path
    yield settings.access_token_path
    for name in (*PRIVATE_FILES, RECORD):
        if name != _LOCK:
            yield from (data / f"{name}{ending}" for ending in _DATABASE_ENDINGS)
    yield from (data / name for name in PRIVATE_DIRECTORIES)
    if settings.queue_url.startswith("sqlite://"):
        queue = settings.queue_url.removeprefix("sqlite://")
        yield from (Path(queue + ending) for ending in _DATABASE_ENDINGS if not Path(queue).is_relative_to(data))
    if controller:
        yield from (settings.controller_data_path, settings.controller_logs_path)


def not_reached(settings: Settings, controller: bool) -> Iterator[str]:
    yield "  - settings with secrets: .env, /etc/teg/teg.env (provisioning key, passwords of the queue)"
    yield "  - the controller's images and container: docker rm -f teg_controller; docker image ls 'teg-controller-*'"
    yield "  - log lines in the system's journal, and everything on the server: revoke the device's token there"
    if not controller:
        yield f"  - the controller's data, {settings.controller_data_path}: teg erase --controller"
    if not settings.queue_url.startswith("sqlite:"):
        yield "  - the queue's server (TEG_QUEUE_URL)"
    yield "  - what a flash card keeps of overwritten files: only its own erase command, or destroying it, helps"


def remove(path: Path) -> None:
    """A small file is overwritten first, which helps where the disk writes in place. Links go, not what they name."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
            return
        if not path.is_symlink() and path.stat().st_size <= 1 << 16:
            with path.open("r+b") as file:
                file.write(bytes(path.stat().st_size))
                file.flush()
                os.fsync(file.fileno())
        path.unlink()
    except OSError as error:
        raise click.ClickException(f"{path} cannot be erased: {error}") from error


@contextmanager
def _exclusive(data_path: Path) -> Iterator[None]:
    """No gateway runs on this directory, and none starts meanwhile."""
    try:
        data_path.mkdir(parents=True, exist_ok=True)
        with (data_path / _LOCK).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
    except BlockingIOError as error:
        raise click.ClickException("the gateway is running: stop it first (systemctl stop teg-gateway)") from error
    except PermissionError as error:
        raise click.ClickException(f"{data_path} belongs to another user: use sudo") from error
