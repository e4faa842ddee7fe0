"""`teg init`: asks what only a person knows, tries it, and writes it down."""

import os
import platform
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from teg.adapters.thingsboard_rest import ThingsBoardRest
from teg.adapters.token_file import AccessTokenFile
from teg.console.checks import server
from teg.console.checks.finding import Finding, Level, Site
from teg.console.wording import harmless
from teg.domain.errors import Refused, Unavailable
from teg.settings import InvalidSettings, Settings, env_file, read_env_file

NAME = "THINGSBOARD_DEVICE_NAME"
KEY, SECRET = "THINGSBOARD_PROVISION_DEVICE_KEY", "THINGSBOARD_PROVISION_DEVICE_SECRET"
UNIT_DIRECTORIES = (Path("/etc/systemd/system"), Path("/usr/lib/systemd/system"))


@click.command()
@click.option("--file", type=click.Path(dir_okay=False, path_type=Path), help="Instead of the usual settings file.")
def init(file: Path | None) -> None:
    """Ask for the server and the token, try the connection, write the settings file.

    Other lines of the file stay as they are, and so does everything until you have seen how the trial went.
    """
    file = file or env_file()
    try:
        known = read_env_file(file)
        answers, token = ask(known)
        settings = Settings.from_environment({**known, **answers})
    except InvalidSettings as problems:
        raise click.ClickException(str(problems)) from problems
    found = list(trial(settings, token))
    for each in found:
        click.echo(str(each))
    if any(each.level is Level.PROBLEM for each in found):
        click.confirm("Write the settings all the same?", abort=True)
    write(file, answers)
    click.echo(f"wrote {file}")
    if token:
        store(settings, token)
    offer_start()


def ask(known: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """(variables, access token or nothing); what is known is the default."""
    host = click.prompt("Name or address of the ThingsBoard server", default=known.get("TB_HOST"))
    web = known.get("TB_TRANSPORT", "").strip().lower() in ("wss", "ws")  # of few sites, so it is not asked for
    tls = click.confirm("Does it speak TLS (encrypted)?", default=known.get("TB_TLS", "on").lower() != "off")
    usual = (443 if tls else 80) if web else (8883 if tls else 1883)
    port = click.prompt("Its MQTT port", default=known.get("TB_PORT") or usual, type=int)
    answers = {"TB_HOST": host, "TB_PORT": str(port), "TB_TLS": "on" if tls else "off"}
    if web:
        answers["TB_TRANSPORT"] = "wss" if tls else "ws"
    if tls:
        question = "File with the certificate of its authority (empty: those of the system)"
        answers["THINGSBOARD_CA_CERT"] = click.prompt(
            question, default=known.get("THINGSBOARD_CA_CERT", ""), show_default=False
        )
    question = "What does the device have (create: it is made on the server now)"
    how = click.prompt(question, type=click.Choice(["token", "create", "keys", "later"]), default="token")
    if how == "keys":
        answers[KEY] = click.prompt("Provisioning key", default=known.get(KEY))
        answers[SECRET] = click.prompt("Provisioning secret", hide_input=True)
    if how == "create":
        return answers, create_device(host, answers.get("THINGSBOARD_CA_CERT", ""), known)
    return answers, click.prompt("Access token", hide_input=True).strip() if how == "token" else ""


def create_device(host: str, ca_file: str, known: Mapping[str, str]) -> str:
    """Have the server make the device; returns its access token. User, password and API key are not kept anywhere."""
    url = click.prompt("Address of the server's web page", default=f"https://{host}")
    if url.startswith("http://"):
        click.echo("! this address is not encrypted: password and token can be read on the way")
    name = click.prompt("The device's name on the server", default=known.get(NAME) or platform.node())
    ca_cert, proxy_url = Path(ca_file) if ca_file else None, known.get("TB_PROXY") or None
    try:
        with ThingsBoardRest(url, *administrator(), ca_cert, proxy_url) as rest:
            device = rest.find("/api/tenant/devices", deviceName=name)
            if device is not None:
                question = f"There is a device '{name}' already. Is it this one? Two devices must not have one token."
                click.confirm(question, abort=True)
            token = access_token(rest, device or rest.post("/api/device", {"name": name}))
    except (Unavailable, Refused) as reason:
        raise click.ClickException(f"the device is not made: {harmless(str(reason))}") from reason
    click.echo(f"device '{name}' is on the server")
    return token


def administrator() -> tuple[str, str]:
    """User and password of a tenant administrator; without a user what stands for them."""
    user = click.prompt("User, an administrator of the tenant (empty: an API key or a session's token)", default="")
    question = "Password (not stored)" if user else "API key or token (not stored)"
    return user, click.prompt(question, hide_input=True).strip()


def access_token(rest: ThingsBoardRest, device: Mapping[str, Any]) -> str:
    """
    Raises:
        Refused: the device has credentials of another kind.
    """
    found = rest.get(f"/api/device/{device['id']['id']}/credentials")
    token = found.get("credentialsId")
    if found.get("credentialsType") != "ACCESS_TOKEN" or not isinstance(token, str) or not token:
        raise Refused("the device has other credentials than an access token")
    return token


def trial(settings: Settings, token: str) -> Iterator[Finding]:
    """The way to the server, and whether it takes the token."""
    way = list(server.check_way(Site(settings, None)))
    yield from way
    if token and not any(each.level is Level.PROBLEM for each in way):
        yield from server.try_token(settings, token)


def write(file: Path, answers: Mapping[str, str]) -> None:
    """Whole or not at all; mode and owner of the file stay, a new one is for its owner and group."""
    try:
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        mode = file.stat() if file.exists() else None
        new = file.with_name(file.name + ".new")
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o640), "w") as to:
            if mode is not None:
                os.fchmod(to.fileno(), mode.st_mode & 0o777)
                os.fchown(to.fileno(), mode.st_uid, mode.st_gid)
            to.write(with_lines(text, answers))
            to.flush()
            os.fsync(to.fileno())
        new.replace(file)
    except OSError as error:
        raise click.ClickException(f"{file} cannot be written: {error.strerror} (sudo?)") from error


def with_lines(text: str, answers: Mapping[str, str]) -> str:
    """`text` with each variable on its own line: where it stood, where its comment shows it, or at the end."""
    for name, value in answers.items():
        line = f"{name}={value}"
        for pattern in (rf"^[ \t]*(export )?{name}[ \t]*=.*$", rf"^#{name}=.*$"):
            if found := re.search(pattern, text, re.MULTILINE):
                text = text[: found.start()] + line + text[found.end() :]
                break
        else:
            text += ("" if text.endswith("\n") or not text else "\n") + line + "\n"
    return text


def store(settings: Settings, token: str) -> None:
    path = settings.access_token_path
    try:
        AccessTokenFile(path).write(token)
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid)
    except (Unavailable, Refused, OSError) as reason:
        raise click.ClickException(f"the token is not stored: {reason}") from reason
    click.echo(f"wrote {path}")


def offer_start() -> None:
    installed = any((directory / "teg.service").exists() for directory in UNIT_DIRECTORIES)
    if installed and Path("/run/systemd/system").is_dir() and click.confirm("Start the service now?", default=True):
        subprocess.run(["systemctl", "restart", "teg"], check=False)
        click.echo("see how it goes: teg status")
