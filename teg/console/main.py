"""`teg`: the operator's command on the device. It reads; what changes something goes through the running gateway."""

from importlib import import_module
from importlib.metadata import version

import click

#: In the order of `teg --help`. Each is imported when it is called: `teg status` need not load Docker's library.
COMMANDS = {
    "init": "teg.console.init",
    "run": "teg.console.run",
    "status": "teg.console.status",
    "check": "teg.console.check",
    "logs": "teg.console.logs",
    "why": "teg.console.why",
    "dead-letters": "teg.console.dead_letters",
    "archive": "teg.console.archive",
    "salvage": "teg.console.salvage",
    "torture": "teg.console.torture",
    "send": "teg.console.send",
    "sim": "teg.console.sim",
    "audit": "teg.console.audit",
    "backup": "teg.console.backup",
    "restore": "teg.console.backup",
    "bundle": "teg.console.bundle",
    "migrate": "teg.console.migrate",
    "uninstall": "teg.console.uninstall",
    "erase": "teg.console.erase",
    "server": "teg.console.server",
    "demo": "teg.console.demo",
    "fleet": "teg.console.fleet",
}


class Commands(click.Group):
    """A command `some-name` is the function `some_name` of its module."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(COMMANDS[cmd_name]), cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(version("teg-gateway"), prog_name="teg")
def main() -> None:
    """The TEG gateway on this device: run it, see how it is, find what is wrong.

    Settings come from the environment and from a file: .env beside the program in a checkout, /etc/teg/teg.env where
    it is installed as a service. "No data?" is answered by 'teg status' first, then by 'teg check'.
    """
