"""`teg archive`: the archive carried elsewhere, brought to the server from there, or sent again from here."""

import datetime
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from teg.adapters import archive_file as stick
from teg.adapters import tls
from teg.adapters.bounded_mqtt_client import client_through
from teg.adapters.gateway_db.database import Database
from teg.adapters.gateway_db.export import ExportTable
from teg.adapters.mqtt_session import MqttSession, Server
from teg.adapters.server_way import Way
from teg.adapters.token_file import AccessTokenFile
from teg.console.back_fill import BackFill, Store, directory_for
from teg.console.checks.finding import Level, Site
from teg.console.checks.server import check_way, try_token
from teg.console.opening import is_readable, is_running, open_settings
from teg.console.own_archive import order
from teg.console.wording import harmless, moment, size
from teg.domain.errors import Refused, Unavailable
from teg.domain.rpc.parameters import EARLIEST_MS, LATEST_MS
from teg.domain.server import Pacer
from teg.domain.telemetry.archive_file import Origin, Row, decode, encode
from teg.settings import Settings

RECEIPT = "receipt.json"
LAST_MS = 253_402_300_799_999  # 9999-12-31


def time_ms(text: str) -> int:
    """A day or a time in UTC, or Unix milliseconds."""
    if text.isascii() and text.isdigit() and len(text) <= 15:
        return int(text)
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            f"'{text}' is neither a time like 2026-01-31 or 2026-01-31T12:00 nor Unix milliseconds"
        ) from None
    return int(found.replace(tzinfo=found.tzinfo or datetime.UTC).timestamp() * 1000)


SINCE = click.option("--since", type=time_ms, help="Measured at or after this time (UTC).")
UNTIL = click.option("--until", type=time_ms, help="Measured at or before this time (UTC); a day means its beginning.")


@click.group()
def archive() -> None:
    """The archive: carry it elsewhere, bring it to the server from there, send it again."""


@archive.command("export")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@SINCE
@UNTIL
@click.option("--undelivered", is_flag=True, help="Only what the server has not acknowledged.")
@click.option("--device", help="This device's name on the server, if it is not the configured one.")
def export(file: Path, since: int | None, until: int | None, undelivered: bool, device: str | None) -> None:
    """Write the measurements into FILE, on a stick for example, to 'import' them where there is a network.

    Also while the gateway runs; nothing is changed here. FILE is compressed text with a checksum.
    """
    settings = open_settings(server_needed=False)
    start_ms, end_ms = since or 0, LAST_MS if until is None else until
    with _plain_errors(), _reading(settings) as table:
        origin = Origin(device or settings.device_name, table.name(), time.time_ns() // 1_000_000)
        total = table.count(start_ms, end_ms, undelivered)
        with click.progressbar(length=total, label=f"{total} records") as bar:
            rows = _counted(table.rows(start_ms, end_ms, undelivered), bar)
            stick.write(file, encode(origin, rows))
        click.echo(f"{file}: {bar.pos} records of device '{origin.device}', {size(file.stat().st_size)}")


@archive.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--token-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Instead of asking.")
@click.option("--device", help="Name of the device on the server that the measurements belong to.")
@click.option("--own-token", is_flag=True, help="The token is that device's own, not a gateway's.")
@click.option("--again", is_flag=True, help="Although it was imported before.")
@click.option("--yes", is_flag=True, help="Do not ask before sending.")
def import_(file: Path, token_file: Path | None, device: str | None, own_token: bool, again: bool, yes: bool) -> None:
    """Send the measurements of FILE, an export of another machine, to the server of TB_HOST and TB_PORT.

    With the token of any device that is marked 'Is gateway' there, they arrive under the device that they came from,
    with their time stamps; with --own-token, the token is that device's own. Whatever of it the server has already, it
    keeps once. An import that was interrupted goes on where it was.
    """
    settings = open_settings()
    with _plain_errors():
        origin, total, checksum = examine(file)
        name = "" if own_token else device or origin.device
        if not name and not own_token:
            raise click.UsageError("the file does not say of which device it is: --device NAME")
        server = (settings.tb_host, settings.tb_port)
        place = directory_for(Path(click.get_app_dir("teg")) / "imports", checksum, server, name)
        if again and place.exists():
            shutil.rmtree(place)
        _refuse_twice(place)
        token = _token(settings, token_file)
        shown = "the token's own device" if own_token else f"device '{harmless(name)}'"
        click.echo(f"{file}: {total} records of '{harmless(origin.device)}', exported {moment(origin.exported_ms)}")
        if not yes:
            click.echo("A device whose name the server does not know is made there." if name else "")
            click.confirm(f"Send them to {server[0]}:{server[1]} as {shown}?", abort=True)
        counts = fill(settings, file, place, token, name)
    click.echo(f"{counts['delivered']} of {total} records acknowledged by {server[0]}, as {shown}")
    if counts["dead_letters"]:
        click.echo(f"{counts['dead_letters']} cannot be stored there; see the reasons: {place}")
        raise SystemExit(1)
    click.echo(
        "none of them is proven stored: an import asks for no proof, and a server that dies within seconds forgets "
        "what it has only acknowledged. Look at them there before you erase the file; --again sends all once more"
    )


@archive.command()
@SINCE
@UNTIL
@click.option("--yes", is_flag=True, help="Do not ask.")
def republish(since: int | None, until: int | None, yes: bool) -> None:
    """Send measurements of the archive again, for a server that has lost them; it keeps each of them once."""
    settings = open_settings(server_needed=False)
    start_ms = max(since or 0, EARLIEST_MS + 1)
    end_ms = min(LATEST_MS - 1 if until is None else until, LATEST_MS - 1)
    with _plain_errors(), _reading(settings) as table:
        total = table.count(start_ms, end_ms, False)
    if not yes:
        click.confirm(f"Send {total} records again?", abort=True)
    span = {"start_timestamp_ms": start_ms, "end_timestamp_ms": end_ms}
    with click.progressbar(length=total, label="marking") as bar:
        said = order(settings, "archive_republish_messages", span, lambda done: bar.update(done - bar.pos))
    click.echo(said)


def examine(file: Path) -> tuple[Origin, int, str]:
    """(whose it is, how many records, its checksum), all of it read and right."""
    origin, checksum, total = None, "", 0
    with click.progressbar(length=file.stat().st_size, label="reading") as bar:
        for item in decode(stick.read(file, lambda place: bar.update(place - bar.pos))):
            if isinstance(item, Origin):
                origin = item
            elif isinstance(item, str):
                checksum = item
            else:
                total += 1
    assert origin is not None
    return origin, total, checksum


def fill(settings: Settings, file: Path, place: Path, token: str, device: str) -> dict[str, int]:
    store = Store(place)
    try:
        store.take(_rows(file), lambda _: None)
        before = store.counts()
        with click.progressbar(length=before["accepted"], label="sending") as bar:
            for done in BackFill(store, lambda pacer: _session(settings, token, pacer), device).run():
                bar.update(done - bar.pos)
        counts = store.counts()
    finally:
        store.close()
    if not counts["dead_letters"]:
        shutil.rmtree(place)
        place.mkdir(mode=0o700)
        receipt = {"file": file.name, "records": counts["delivered"], "when_ms": time.time_ns() // 1_000_000}
        (place / RECEIPT).write_text(json.dumps(receipt))
    return counts


def _rows(file: Path) -> Iterator[Row]:
    return (item for item in decode(stick.read(file)) if isinstance(item, Row))


def _counted(rows: Iterator[Row], bar: Any) -> Iterator[Row]:
    for row in rows:
        bar.update(1)
        yield row


def _refuse_twice(place: Path) -> None:
    receipt = place / RECEIPT
    if receipt.exists():
        when = moment(json.loads(receipt.read_text())["when_ms"])
        raise click.ClickException(f"it was imported at {when}, all of it acknowledged; once more with --again")


def _token(settings: Settings, token_file: Path | None) -> str:
    """Tried before anything is sent, and never that of a gateway that runs here: the server would close its session."""
    token = AccessTokenFile(token_file, mend=False).read() if token_file else click.prompt("Token", hide_input=True)
    if not token:
        raise click.ClickException("there is no token")
    own = AccessTokenFile(settings.access_token_path, mend=False).read() if _is_ours(settings) else None
    if own == token and is_running(settings.data_path):
        raise click.ClickException("the gateway that runs here uses this token: stop it first, or take another token")
    found = list(check_way(Site(settings, None)))
    if not any(each.level is Level.PROBLEM for each in found):
        found = list(try_token(settings, token))
    for each in found:
        if each.level is Level.PROBLEM:
            raise click.ClickException(str(each))
    return str(token)


def _is_ours(settings: Settings) -> bool:
    return is_readable(settings.access_token_path)


def _session(settings: Settings, token: str, pacer: Pacer) -> MqttSession:
    context = tls.context_of(settings)
    client = client_through(Way.of(settings, context).open)
    server = Server(settings.tb_host, settings.tb_port, context, client)
    return MqttSession(server, lambda: token, lambda *_: None, lambda: None, pacer=pacer, subscriptions=())


@contextmanager
def _reading(settings: Settings) -> Iterator[ExportTable]:
    path = settings.data_path / "gateway.db"
    if not is_readable(path):
        raise click.ClickException(f"there is no {path}: the gateway has not run with these settings yet")
    database = Database(path, read_only=True)
    try:
        yield ExportTable(database)
    finally:
        database.close()


@contextmanager
def _plain_errors() -> Iterator[None]:
    try:
        yield
    except (Unavailable, Refused) as reason:
        raise click.ClickException(str(reason)) from reason
