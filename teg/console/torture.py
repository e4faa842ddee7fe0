"""`teg torture`: a gateway of its own is broken in every way for some minutes, on this machine's own card."""

import time
from importlib import import_module
from pathlib import Path

import click

from teg.console.opening import open_settings
from teg.settings import env_file, environment_with


@click.command()
@click.option("--seconds", default=60.0, show_default=True, help="How long faults are injected.")
@click.option("--seed", type=int, help="Repeats the faults of an earlier run; it is printed.")
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where, on the card that is meant; empty or new. Default: below the data directory.",
)
def torture(seconds: float, seed: int | None, directory: Path | None) -> None:
    """Break a gateway again and again, and account for every record: does this card, this machine lose data?

    Starts a gateway, a producer and a server of its own, which nobody else can reach; the gateway that may be running
    here, its data and its server are not touched. The faults: kill -9, stops, pauses, a full disk, locked databases, a
    deleted queue, a link that is slow, delayed, dead, half-open or reset, a server that is away or restarts. Ends with
    0 when nothing was lost, else with 1; then everything stays in the directory.
    """
    simulator = import_module("teg.simulator.torture.cli")  # the product itself never needs it
    seed = time.time_ns() % 1_000_000 if seed is None else seed
    place = directory or _default_directory(seed)
    try:
        simulator.torture_in(place, seed, seconds, click.echo, environment_with(), env_file())
    except simulator.NotSound as reason:
        raise click.ClickException(str(reason)) from reason
    except OSError as error:
        raise click.ClickException(f"{place} cannot be used: {error.strerror or error}") from error


def _default_directory(seed: int) -> Path:
    data_path = open_settings(server_needed=False).data_path
    return data_path / "torture" / f"{time.strftime('%Y%m%dT%H%M%S')}-{seed}"
