"""`teg logs`: the gateway's own lines, its controller's, or the remote calls."""

import os
import shutil
from pathlib import Path

import click

from teg.adapters.docker_engine.client import Engine
from teg.console.opening import open_settings
from teg.console.wording import harmless
from teg.domain.errors import Refused, Unavailable
from teg.domain.supervision.runtime import CONTAINER_NAME


@click.command()
@click.option("--lines", "-n", default=50, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--controller", is_flag=True, help="What the controller writes to its output.")
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes (the gateway's lines only).")
def logs(lines: int, controller: bool, follow: bool) -> None:
    """The last lines of the gateway (from the journal) or of its controller (from Docker)."""
    if controller:
        _controller(lines)
    elif (journal := shutil.which("journalctl")) and Path("/run/systemd/system").is_dir():
        arguments = [journal, "--unit", "teg", "--lines", str(lines), *(["--follow"] if follow else [])]
        os.execv(journal, arguments)  # noqa: S606 - no shell, and nothing of ours is left to do
    else:
        raise click.ClickException("no systemd here: the gateway's log goes to its standard error, or 'docker logs'")


def _controller(lines: int) -> None:
    settings = open_settings(server_needed=False)
    try:
        raw = Engine(settings.docker_host).call(lambda client: client.logs(CONTAINER_NAME, tail=lines))
    except (Unavailable, Refused) as reason:
        raise click.ClickException(str(reason)) from reason
    for line in raw.decode(errors="replace").splitlines():
        click.echo(harmless(line, 4000))
