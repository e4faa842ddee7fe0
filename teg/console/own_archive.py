"""What changes the archive: the running gateway does it when asked; without one, this process does it in its place.

Only one process ever writes `gateway.db`: it is the one that holds the lock.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import click
import orjson

from teg.adapters import status_socket
from teg.adapters.clock import SystemClock
from teg.adapters.gateway_db import outbox, rpc_journal, state
from teg.adapters.gateway_db.keeper import DatabaseKeeper
from teg.adapters.gateway_db.maintenance import ArchiveMaintenance
from teg.adapters.gateway_db.rpc_journal import RpcJournalTable
from teg.console.opening import is_readable, is_running
from teg.domain.errors import Refused, Unavailable
from teg.domain.rpc.local_orders import calls_without_a_gateway, encode_order, obey
from teg.settings import Settings

#: The longest silence between two slices of work; a card may be busy for a minute.
PATIENCE_S = 120.0
Progress = Callable[[int], None]


def order(settings: Settings, method: str, params: dict[str, Any], progress: Progress = lambda _: None) -> str:
    """Have it done; returns the answer. Ends the command with the reason when it is refused or not possible."""
    path = settings.data_path / "gateway.db"
    if not is_readable(path):
        raise click.ClickException(f"there is no {path}: the gateway has not run with these settings yet")
    request = encode_order(method, params)
    try:
        if is_running(settings.data_path):
            return _by_the_gateway(settings, request, progress)
        return _in_its_place(settings, request, progress)
    except (Unavailable, Refused) as reason:
        raise click.ClickException(str(reason)) from reason
    except SystemExit as reason:  # the lock: one was started just now
        raise click.ClickException(f"{reason.code}; try again") from reason


def _by_the_gateway(settings: Settings, request: bytes, progress: Progress) -> str:
    lines = status_socket.order(settings.data_path, request, PATIENCE_S)
    if lines is None:
        raise Unavailable("the gateway is starting or stopping; try again in a moment")
    answer = None
    for line in lines:
        answer = _answer(line, progress)
    if answer is None:
        raise Unavailable("the gateway stopped before it was done; try again")
    return answer


def _in_its_place(settings: Settings, request: bytes, progress: Progress) -> str:
    from tasks.consumer import single_instance  # the gateway's lock; not loaded for looking

    _become_the_owner(settings)
    with single_instance(settings.data_path / "gateway.lock"):
        keeper = DatabaseKeeper(settings.data_path / "gateway.db", SystemClock().monotonic_s)
        try:
            keeper.open(outbox.SCHEMA, state.SCHEMA, rpc_journal.SCHEMA)
            archive, journal = ArchiveMaintenance(keeper.database), RpcJournalTable(keeper.database)
            calls = calls_without_a_gateway(archive, journal, SystemClock(), settings.rpc_disabled)
            done = obey(calls, request, lambda line: _tell(line, progress))
            with suppress(Unavailable):  # a line of the journal; what was asked for is done
                calls.tend()
            keeper.tend()
        finally:
            keeper.close()
    return _answer(done, progress) or ""


def _become_the_owner(settings: Settings) -> None:
    """Root works as the gateway's own account: what is made on the way (lock, write-ahead log) has to be its own."""
    if os.geteuid() == 0:
        owner = settings.data_path.stat()
        os.setegid(owner.st_gid)
        os.seteuid(owner.st_uid)


def _tell(line: bytes, progress: Progress) -> None:
    _answer(line, progress)


def _answer(line: bytes, progress: Progress) -> str | None:
    """None: it was progress."""
    said = orjson.loads(line)
    if "error" in said:
        raise Refused(said["error"])
    if "done" in said:
        progress(said["done"])
        return None
    return str(said["ok"])
