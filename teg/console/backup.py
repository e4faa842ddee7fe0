"""`teg backup` and `teg restore`: what makes this device this device, in one file."""

import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from teg.adapters.gateway_db.backup import check_database, copy_database
from teg.console.opening import open_settings
from teg.console.wording import size
from teg.domain.errors import Refused, Unavailable
from teg.settings import Settings

DATABASE, TOKEN, VERSION = "gateway.db", "tb_access_token", "last_launched_controller_version.txt"
#: A backup holds nothing else; anything else in it was put there by somebody.
MEMBERS = {DATABASE, TOKEN, VERSION}


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def backup(file: Path) -> None:
    """Write archive, backlog, token and state into FILE, also while the gateway runs.

    FILE is as secret as the token. Settings (the env file) are not in it.
    """
    settings = open_settings(server_needed=False)
    with _plain_errors():
        found = write_backup(settings, file)
    click.echo(f"{file}: {size(file.stat().st_size)} ({', '.join(found)})")


def write_backup(settings: Settings, file: Path) -> list[str]:
    """Whole or not at all: it gets its name last. Returns what is in it."""
    sources = {TOKEN: settings.access_token_path, VERSION: settings.data_path / VERSION}
    unfinished = file.with_name(file.name + ".unfinished")
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".teg-backup-") as directory:
        copy = Path(directory) / DATABASE
        copy_database(settings.data_path / DATABASE, copy)
        present = {DATABASE: copy} | {name: path for name, path in sources.items() if path.exists()}
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as raw:
            with tarfile.open(fileobj=raw, mode="w:gz", compresslevel=1) as archive:
                for name, path in present.items():
                    archive.add(path, arcname=name, recursive=False)
            raw.flush()
            os.fsync(raw.fileno())
    unfinished.replace(file)
    return list(present)


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def restore(file: Path) -> None:
    """Make this device what FILE, a backup, says; the gateway has to be stopped.

    What is replaced is kept in a directory beside it.
    """
    from tasks.consumer import single_instance  # huey's lock is the gateway's; not loaded for a backup

    settings = open_settings(server_needed=False)
    with _plain_errors(), single_instance(settings.data_path / "gateway.lock"):
        kept = read_backup(settings, file)
    click.echo(f"restored from {file}; what was here before is in {kept}")


def read_backup(settings: Settings, file: Path) -> Path:
    """Everything is unpacked and checked before anything is replaced. Returns where the former files are."""
    data = settings.data_path
    with tempfile.TemporaryDirectory(dir=data, prefix=".restore-") as directory:
        unpacked = Path(directory)
        _unpack(file, unpacked)
        check_database(unpacked / DATABASE)
        kept = data / f"before-restore-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}"
        kept.mkdir(mode=0o700)
        targets = {DATABASE: data / DATABASE, VERSION: data / VERSION, TOKEN: settings.access_token_path}
        for former in [*data.glob(f"{DATABASE}*"), *(path for path in targets.values() if path.exists())]:
            if former.exists():
                shutil.move(former, kept / former.name)
        for name, target in targets.items():
            if (unpacked / name).exists():
                shutil.move(unpacked / name, target)
        _give_to_the_owner(data, [kept, *kept.iterdir(), *targets.values()])
    return kept


def _unpack(file: Path, directory: Path) -> None:
    with tarfile.open(file) as archive:
        for member in archive.getmembers():
            if member.name not in MEMBERS or not member.isreg():
                raise Refused(f"{file} is no backup of a gateway: it holds '{member.name}'")
            source = archive.extractfile(member)
            assert source is not None, member.name
            with (
                source,
                os.fdopen(os.open(directory / member.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as to,
            ):
                shutil.copyfileobj(source, to)
    if not (directory / DATABASE).exists():
        raise Refused(f"{file} is no backup of a gateway: it has no {DATABASE}")


def _give_to_the_owner(directory: Path, paths: list[Path]) -> None:
    """Restored by root, used by the gateway's own account."""
    owner = directory.stat()
    for path in paths:
        if path.exists() and os.geteuid() == 0:
            os.chown(path, owner.st_uid, owner.st_gid)


@contextmanager
def _plain_errors() -> Iterator[None]:
    try:
        yield
    except (Unavailable, Refused) as reason:
        raise click.ClickException(str(reason)) from reason
    except tarfile.TarError as error:
        raise click.ClickException(f"this is no backup: {error}") from error
    except OSError as error:
        raise click.ClickException(str(error)) from error
    except SystemExit as reason:  # the lock: another gateway holds it
        raise click.ClickException(f"{reason.code}; stop it first: systemctl stop teg") from reason
