"""`teg server`: what a ThingsBoard server needs for our gateways: a device profile with alarms, and a dashboard."""

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from teg.adapters.thingsboard_rest import ThingsBoardRest
from teg.console.server_side.parts import Change, install_parts, plan_parts, profile_id
from teg.domain.errors import Refused, Unavailable
from teg.settings import environment_variable

URL = click.option("--url", required=True, help="Address of the server, such as https://tb.example.org.")
USER = click.option("--user", prompt="User (tenant administrator)", help="A tenant administrator.")
#: Of the administrator; asked for when it is not set. Never an argument: those are in everybody's `ps`.
PASSWORD_VARIABLE = "TEG_SERVER_PASSWORD"  # noqa: S105
CA_CERT = click.option(
    "--ca-cert", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Authority of the server."
)


@click.group()
def server() -> None:
    """The ThingsBoard server's side: alarms and a dashboard for gateways, from this machine over its REST API.

    The password is asked for, or taken from the variable TEG_SERVER_PASSWORD.
    """


@server.command()
@URL
@USER
@CA_CERT
@click.option("--device", "devices", multiple=True, help="Give this device the profile; may be repeated.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
def install(url: str, user: str, ca_cert: Path | None, devices: Sequence[str], dry_run: bool) -> None:
    """Bring device profile and dashboard to the server, or up to date there.

    Harmless twice. The profile keeps what is set in it beside our alarms (provisioning, rule chain, other alarms); the
    dashboard becomes ours again: keep changes of your own in a copy under another title.
    """
    try:
        with ThingsBoardRest(url, user, password(), ca_cert) as rest:
            changes = plan_parts(rest) if dry_run else install_parts(rest)
            for change in changes:
                _say(change, dry_run)
            assign(rest, devices, dry_run)
    except (Refused, Unavailable) as problem:
        raise click.ClickException(str(problem)) from problem


@server.command()
@URL
@USER
@CA_CERT
def check(url: str, user: str, ca_cert: Path | None) -> None:
    """Say whether profile and dashboard are there as this version of the gateway has them; 1 if not."""
    try:
        with ThingsBoardRest(url, user, password(), ca_cert) as rest:
            changes = plan_parts(rest)
            count = devices_of_profile(rest)
    except (Refused, Unavailable) as problem:
        raise click.ClickException(str(problem)) from problem
    for change in changes:
        click.echo(f"{change.part.label}: {'as it should be' if change.kind == 'same' else STATES[change.kind]}")
    click.echo(f"devices of the profile: {count}")
    if any(change.kind != "same" for change in changes):
        raise click.exceptions.Exit(1)


def password() -> str:
    """Of the variable, else typed at a terminal, else the first line of what is piped in."""
    if found := environment_variable(PASSWORD_VARIABLE):
        return found
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, err=True))
    if piped := sys.stdin.readline().rstrip("\r\n"):
        return piped
    raise click.ClickException(f"no terminal to ask for the password at: set {PASSWORD_VARIABLE}")


STATES = {"new": "missing", "different": "differs from this version's"}


def _say(change: Change, dry_run: bool) -> None:
    done = {"new": "created", "different": "updated", "same": "unchanged"}
    planned = {"new": "would be created", "different": "would be updated", "same": "is up to date"}
    click.echo(f"{change.part.label}: {(planned if dry_run else done)[change.kind]}")


def assign(rest: ThingsBoardRest, devices: Sequence[str], dry_run: bool) -> None:
    """
    Raises:
        Refused: there is no such device.
    """
    for name in devices:
        device = rest.find("/api/tenant/devices", deviceName=name)
        if device is None:
            raise Refused(f"the server has no device {name!r}")
        identity = profile_id(rest)
        if identity is not None and device["deviceProfileId"]["id"] == identity:
            click.echo(f"device {name}: has the profile")
        elif dry_run or identity is None:
            click.echo(f"device {name}: would get the profile")
        else:
            rest.post("/api/device", {**device, "deviceProfileId": {"entityType": "DEVICE_PROFILE", "id": identity}})
            click.echo(f"device {name}: has got the profile")


def devices_of_profile(rest: ThingsBoardRest) -> int:
    identity = profile_id(rest)
    return sum(device["deviceProfileId"]["id"] == identity for device in rest.pages("/api/tenant/devices"))
