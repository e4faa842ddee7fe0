"""`teg audit`: which remote calls there were, for a spreadsheet."""

import csv
import datetime
import sys

import click

from teg.adapters.gateway_db.database import Database
from teg.adapters.gateway_db.rpc_journal import KEPT_EFFECTS, KEPT_QUICK, RpcJournalTable
from teg.console.opening import is_readable, open_settings
from teg.console.wording import moment
from teg.domain.errors import Unavailable

COLUMNS = ("time", "id", "method", "parameters", "state", "duration_ms", "answer")


@click.command()
@click.option("--day", type=click.DateTime(["%Y-%m-%d"]), help="Only this day (UTC), e.g. 2026-01-31.")
def audit(day: datetime.datetime | None) -> None:
    """The remote calls of the past as CSV, oldest first; passwords and tokens in them are already hidden."""
    path = open_settings(server_needed=False).data_path / "gateway.db"
    if not is_readable(path):
        raise click.ClickException(f"there is no {path}: the gateway has not run with these settings yet")
    database = Database(path, read_only=True)
    try:
        calls = RpcJournalTable(database).recent(KEPT_EFFECTS + KEPT_QUICK)
    except Unavailable as reason:
        raise click.ClickException(str(reason)) from reason
    finally:
        database.close()
    table = csv.writer(sys.stdout)
    table.writerow(COLUMNS)
    for call in calls:
        at = moment(call.received_ms)
        if day is None or at.startswith(day.strftime("%Y-%m-%d")):
            row = (at, call.key.request_id, call.key.method, call.params, call.state, call.duration_ms, call.answer)
            table.writerow([_cell(value) for value in row])


def _cell(value: object) -> str:
    """What the server chose must not become a formula in somebody's spreadsheet."""
    text = "" if value is None else str(value)
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
