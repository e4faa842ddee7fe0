"""`teg salvage FILE`: hands a damaged or left-over gateway.db to the gateway, which brings back what can be read."""

import shutil
from pathlib import Path

import click

from teg.adapters.gateway_db import quarantine
from teg.settings import InvalidSettings, Settings


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def salvage(file: Path) -> None:
    """Bring back the records of FILE, a gateway.db that was damaged, moved away or kept as a backup.

    FILE and the FILE-wal beside it are copied, and stay as they are. The running gateway, or the next one to start,
    reads them within a minute: undelivered records first, each once. Records that it has are not recognised: salvage a
    file whose records the gateway has lost, and each file once.
    """
    try:
        database = Settings.from_environment().data_path / "gateway.db"
    except InvalidSettings as problems:
        raise click.ClickException(str(problems)) from problems
    if database.exists() and database.samefile(file):
        raise click.ClickException(f"{file} is the database in use; the gateway repairs it by itself")
    folder = hand_over(file, database)
    click.echo(f"copied to {folder}; the gateway brings its records back, and says in its log how many")


def hand_over(file: Path, database: Path) -> Path:
    """The note comes last: a copy that was interrupted is not read."""
    folder = quarantine.new_folder(database)
    for suffix in ("", "-wal"):
        part = file.with_name(file.name + suffix)
        if part.exists():
            shutil.copyfile(part, folder / (database.name + suffix))
    quarantine.note(folder, quarantine.TO_SALVAGE, f"teg salvage {file}")
    return folder
