"""`teg send`: a record by hand, the way a controller sends it."""

import json
import re
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from teg.console.opening import open_settings

KEY = re.compile(r"[^\s=]{1,255}")


@click.command()
@click.argument("values", nargs=-1, required=True, metavar="KEY=VALUE...")
def send(values: tuple[str, ...]) -> None:
    """Put one record into the inbox, e.g.: teg send note="filter changed" co2=412.5

    A value that is a number, true or false is sent as such, everything else as text. It goes the same way as every
    measurement: archived, published, once.
    """
    record = {"ts": time.time_ns() // 1_000_000, "values": dict(map(parse_value, values))}
    path = open_settings(server_needed=False).inbox_path
    if not path.exists():
        raise click.ClickException(f"there is no {path}: the controller makes it, and has not run yet")
    _insert(path, json.dumps(record))
    click.echo(json.dumps(record))


def parse_value(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    if not separator or not KEY.fullmatch(key):
        raise click.BadParameter(f"'{text}' is not KEY=VALUE")
    try:
        found = json.loads(value, parse_constant=str)
    except json.JSONDecodeError:
        return key, value
    return (key, found) if isinstance(found, bool | int | float) else (key, value)


def _insert(path: Path, message: str) -> None:
    """As controllers do it: their table, one short transaction."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=5.0)) as connection:
            connection.execute("INSERT INTO messages (type, message) VALUES ('measurement', ?)", (message,))
            connection.commit()
    except sqlite3.Error as error:
        raise click.ClickException(f"{path}: {error}") from error
