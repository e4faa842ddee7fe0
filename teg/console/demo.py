"""`teg demo`: the gateway at work with a ThingsBoard stand-in, on this machine alone."""

import os
import re
import sys
from collections.abc import Iterator
from importlib import metadata

import click

from teg.settings import environment_with


@click.command()
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="Play a script of blows for so long.")
def demo(seconds: float | None) -> None:
    """Show the gateway at work: a controller, the gateway and a ThingsBoard stand-in, and what you do to them.

    Every key is a blow: network off, kill -9, power cut, full disk, damaged database, updates. Nothing is touched but a
    temporary directory, and nothing of this machine's settings is used. At the end stands the account: recorded,
    delivered, lost, duplicated; the exit code is 0 if nothing was lost.
    """
    if missing := list(missing_libraries()):
        quoted = " ".join(f"'{requirement}'" for requirement in missing)
        raise click.ClickException(f"the demo needs more than the gateway: {sys.executable} -m pip install {quoted}")
    chosen = None if seconds is None else f"{seconds:.3f}"
    command = [sys.executable, "-m", "teg.simulator.demo"]
    os.execve(command[0], command, environment_with(DEMO_SECONDS=chosen))  # noqa: S606


def missing_libraries() -> Iterator[str]:
    """What the extra `demo` asks for and is not installed, as pip writes it."""
    for line in metadata.requires("teg-gateway") or ():
        requirement, _, condition = (part.strip() for part in line.partition(";"))
        name = re.match(r"[\w.-]+", requirement)
        if name and re.fullmatch(r"""extra == ['"]demo['"]""", condition):
            try:
                metadata.distribution(name[0])
            except metadata.PackageNotFoundError:
                yield requirement
