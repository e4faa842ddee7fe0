"""`teg`: the operator's command on the device. It reads; what changes something goes through the running gateway."""

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from teg.adapters.gateway_db.database import Database
from teg.adapters.gateway_db.maintenance import ArchiveMaintenance
from teg.console.salvage import salvage
from teg.domain.errors import Unavailable
from teg.settings import InvalidSettings, Settings


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("teg-gateway"), prog_name="teg")
def main() -> None:
    """The TEG gateway on this device: how it is, and whether its settings are right.

    Settings come from the environment and in a checkout a .env file beside the program, as for the gateway itself.
    """


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of lines.")
def status(as_json: bool) -> None:
    """Is it running, and how much is on its way to the server?"""
    settings = _settings()
    report: dict[str, Any] = {"running": is_running(settings.data_path), "data_path": str(settings.data_path)}
    if settings.shared_before:
        report["moved_out_of"] = str(settings.shared_before)
    with _maintenance(settings) as maintenance:
        report |= maintenance.counts()
    if as_json:
        click.echo(json.dumps(report))
        return
    for line in status_lines(report, time.time_ns() // 1_000_000):
        click.echo(line)


@main.command("dead-letters")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000))
def dead_letters(limit: int) -> None:
    """Records that were set aside, newest first, each with its reason."""
    with _maintenance(_settings()) as maintenance:
        letters = maintenance.dead_letters(limit)
    for letter in letters:
        click.echo(f"#{letter['id']}  inbox row {letter['inbox_row']}  {letter['reason']}")
        click.echo(f"    {letter['message'][:200]}")
    if not letters:
        click.echo("nothing was set aside")


main.add_command(salvage)


@main.command()
def check() -> None:
    """Check the settings the gateway would start with, and name every problem."""
    settings = _settings()
    click.echo(f"settings are valid: server {settings.tb_host}:{settings.tb_port}, data in {settings.data_path}")


def is_running(data_path: Path) -> bool:
    """True while a consumer holds the lock of this data directory."""
    try:
        with (data_path / "gateway.lock").open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def status_lines(report: dict[str, Any], now_ms: int) -> list[str]:
    oldest = report["oldest_pending_ts"]
    age = "" if oldest is None else f", the oldest from {max(0, now_ms - oldest) // 1000} s ago"
    moved = report.get("moved_out_of")
    return [
        *([f"data moved   out of {moved}, which the controller sees, to {report['data_path']}"] if moved else []),
        f"gateway      {'running' if report['running'] else 'NOT RUNNING'} ({report['data_path']})",
        f"accepted     {report['accepted']}",
        f"delivered    {report['delivered']}",
        f"on the way   {report['pending']}{age}",
        f"republishing {report['republish_pending']}",
        f"set aside    {report['dead_letters']} (teg dead-letters)",
        f"evicted      {report['evicted']}",
    ]


def _settings() -> Settings:
    try:
        return Settings.from_environment()
    except InvalidSettings as problems:
        raise click.ClickException(str(problems)) from problems


@contextmanager
def _maintenance(settings: Settings) -> Iterator[ArchiveMaintenance]:
    path = settings.data_path / "gateway.db"
    if not path.exists():
        raise click.ClickException(f"there is no {path}: the gateway has not run with these settings yet")
    database = Database(path, read_only=True)
    try:
        yield ArchiveMaintenance(database)
    except Unavailable as reason:
        raise click.ClickException(str(reason)) from reason
    finally:
        database.close()
