"""`teg run`: the gateway in this process, with the arguments of the reference gateway."""

import os
import sys
from pathlib import Path

import click

from teg.settings import environment_with


@click.command()
@click.option("--tb-host", metavar="HOST", help="Name or address of the server (instead of TB_HOST).")
@click.option("--tb-port", metavar="PORT", help="Its MQTT port (instead of TB_PORT).")
def run(tb_host: str | None, tb_port: str | None) -> None:
    """Run the gateway, until SIGTERM or Ctrl-C.

    The same as 'huey_consumer gateway.huey'. It ends with 0 after a signal, with 15 after the remote call 'exit', and
    with 1 for a wrong setting or a second gateway on the same data.
    """
    consumer = str(Path(sys.executable).with_name("huey_consumer"))
    os.execve(consumer, [consumer, "gateway.huey"], environment_with(TB_HOST=tb_host, TB_PORT=tb_port))  # noqa: S606
