"""`teg sim`: what stands in for the server and the controller, for trying things without them."""

from collections.abc import Callable
from importlib import import_module

import click

from teg.console.sim_fleet import fleet

#: Arguments go on as they are, `--help` too: each of them has a command line of its own.
ALL = {"ignore_unknown_options": True, "help_option_names": [], "allow_interspersed_args": False}
arguments = click.argument("arguments", nargs=-1, type=click.UNPROCESSED)


@click.group()
def sim() -> None:
    """Stand-ins for a desk: a server, a controller, and both ends around a controller of yours. Ask each for --help."""


def _run(module: str, given: tuple[str, ...]) -> None:
    main: Callable[[list[str]], int] = import_module(module).main
    raise SystemExit(main(list(given)))


@sim.command(context_settings=ALL)
@arguments
def desk(arguments: tuple[str, ...]) -> None:
    """Try your controller between a server and a gateway, e.g.: teg sim desk -- python3 main.py"""
    _run("teg.simulator.desk", arguments)


@sim.command(context_settings=ALL)
@arguments
def server(arguments: tuple[str, ...]) -> None:
    """Only the ThingsBoard stand-in, with its REST API if you like, for a gateway of yours (docs/stand-in.md)."""
    _run("teg.simulator.thingsboard.cli", arguments)


sim.add_command(fleet)


@sim.command(context_settings=ALL)
@arguments
def controller(arguments: tuple[str, ...]) -> None:
    """Only a controller, which measures this machine, for a gateway of yours."""
    _run("teg.simulator.example_controller", arguments)
