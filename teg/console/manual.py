"""The manual page and the shell's completion, made from the commands themselves: `python -m teg.console.manual man`."""

import inspect
import re
import sys
from importlib.metadata import version

import click
from click.shell_completion import BashComplete

from teg.console.main import main


def manual() -> str:
    """roff, for man(1)."""
    context = click.Context(main, info_name="teg")
    lines = [
        f'.TH TEG 1 "" "teg-gateway {version("teg-gateway")}"',
        ".SH NAME",
        "teg \\- the TEG gateway on this device",
    ]
    lines += [".SH DESCRIPTION", *_paragraphs(main), ".SH COMMANDS"]
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None
        lines += _described(command, name, context)
    lines += [".SH FILES", ".TP", "/etc/teg/teg.env", "Settings.", ".TP", "/var/lib/teg", "Data.", ".SH SEE ALSO"]
    return "\n".join([*lines, "/usr/share/doc/teg\\-gateway/docs", ""])


def _described(command: click.Command, name: str, parent: click.Context) -> list[str]:
    """A command, and those below it."""
    context = click.Context(command, info_name=name, parent=parent)
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [".SS", f"{_escaped(context.command_path)} {_escaped(usage)}", *_paragraphs(command), *_options(command)]
    for below, found in command.commands.items() if isinstance(command, click.Group) else ():
        lines += _described(found, below, context)
    return lines


def _paragraphs(command: click.Command) -> list[str]:
    text = inspect.cleandoc(command.help or "")
    return [line for part in re.split(r"\n\s*\n", text) for line in (".PP", _escaped(" ".join(part.split())))]


def _options(command: click.Command) -> list[str]:
    lines = []
    for each in command.params:
        if isinstance(each, click.Option) and not each.hidden:
            lines += [".TP", r"\fB" + _escaped(", ".join(each.opts)) + r"\fR", _escaped(each.help or "")]
    return lines


def _escaped(text: str) -> str:
    """A backslash, a hyphen that may be copied, and a dot or quote that would be a request at the beginning."""
    text = text.replace("\\", r"\e").replace("-", r"\-")
    return r"\&" + text if text[:1] in (".", "'") else text


def completion() -> str:
    """For bash; it asks `teg` itself, so it knows every option."""
    return BashComplete(main, {}, "teg", "_TEG_COMPLETE").source()


if __name__ == "__main__":
    sys.stdout.write({"man": manual, "bash": completion}[sys.argv[1]]())
