"""`teg migrate --dry-run`: what the change-over from the reference gateway will do here, before it is done."""

from collections.abc import Iterator

import click

from teg.adapters.docker_engine.client import Engine, NotThere
from teg.console.checks.configuration import check_names
from teg.console.checks.finding import Finding, Level, Site, fine, problem, skipped, warning
from teg.console.opening import is_running, open_settings
from teg.console.wording import harmless, size
from teg.domain.errors import Refused, Unavailable
from teg.domain.supervision.runtime import CONTAINER_NAME
from teg.settings import Settings

DATABASES = ("gateway_archive.db", "gateway_logs_buffer.db")
#: Containers that the reference's scripts make for the gateway itself.
REFERENCE_GATEWAYS = ("thingsboard-edge-gateway-runner", "thingsboard_edge_gateway")


@click.command()
@click.option("--dry-run", is_flag=True, required=True, help="There is no other: the first start does it.")
def migrate(dry_run: bool) -> None:
    """Look at the reference gateway's files and containers here, and say what becomes of each.

    Run it with the environment of the old gateway, before the new one is started for the first time.
    """
    settings = open_settings()
    found = sorted(preflight(settings), key=lambda each: each.level.value)
    for each in found:
        click.echo(str(each))
    raise SystemExit({Level.PROBLEM: 2, Level.WARNING: 1}.get(found[0].level, 0))


def preflight(settings: Settings) -> Iterator[Finding]:
    yield from check_names(Site(settings, None))
    yield from _databases(settings)
    yield from _moves(settings)
    yield _remote_files(settings)
    yield _commands(settings)
    yield from _containers(settings)
    if is_running(settings.data_path):
        yield warning("gateway", "this gateway runs already: the change-over has been made", "teg status")


def _databases(settings: Settings) -> Iterator[Finding]:
    places = [*(settings.legacy_data_path / name for name in DATABASES), settings.inbox_path]
    for path in places:
        if path.exists():
            text = f"{path} ({size(path.stat().st_size)}): everything in it is taken over, the file stays"
            yield fine("database", text)
        else:
            yield skipped("database", f"there is no {path}")


def _moves(settings: Settings) -> Iterator[Finding]:
    for former, place in settings.former_files:
        if former.exists() and not place.exists():
            yield fine("moves", f"{former} → {place}")
    if settings.shared_before:
        yield fine("moves", f"{settings.shared_before} becomes the controller's; {settings.data_path} is the gateway's")


def _remote_files(settings: Settings) -> Finding:
    roots = ", ".join(map(str, settings.file_roots))
    if settings.file_roots != (settings.controller_data_path,):
        return fine("remote files", f"are written in {roots}")
    remedy = "name the directories of your FILES in TEG_FILE_ROOTS, e.g. TEG_FILE_ROOTS=/root/data:/etc/cron.d"
    return warning("remote files", f"are written in {roots} only", remedy)


def _commands(settings: Settings) -> Finding:
    if settings.rpc_run_command == "off":
        remedy = "TEG_RPC_RUN_COMMAND=on, or a list of commands, if you call it"
        return warning("run_command", "is off here, and was always on there", remedy)
    return fine("run_command", settings.rpc_run_command)


def _containers(settings: Settings) -> Iterator[Finding]:
    if settings.controller_runtime != "docker":
        yield skipped("containers", f"not used (TEG_CONTROLLER_RUNTIME={settings.controller_runtime})")
        return
    engine = Engine(settings.docker_host)
    for name in REFERENCE_GATEWAYS:
        if (found := _container(engine, name)) and found["State"].get("Running"):
            remedy = f"docker stop {name} && docker update --restart=no {name}"
            yield problem("old gateway", f"the container {name} runs: two gateways would share one token", remedy)
    try:
        found = engine.call(lambda client: client.inspect_container(CONTAINER_NAME))
    except NotThere:
        yield skipped("controller", f"there is no container {CONTAINER_NAME}")
    except (Unavailable, Refused) as reason:
        yield problem("controller", harmless(str(reason)), "systemctl start docker")
    else:
        yield _rights(settings, found["HostConfig"].get("Privileged", False))


def _container(engine: Engine, name: str) -> dict[str, dict[str, object]] | None:
    try:
        return dict(engine.call(lambda client: client.inspect_container(name)))
    except (Unavailable, Refused):
        return None


def _rights(settings: Settings, privileged: bool) -> Finding:
    if privileged and "privileged" in settings.controller_fixed and not settings.controller_privileged:
        remedy = "TEG_CONTROLLER_PRIVILEGED=on, or unset it, to keep what it has (docs/controller.md)"
        return warning("controller", "has all rights now and will have few", remedy)
    if privileged and not settings.controller_privileged:
        remedy = "take them away by settings while you can look: docs/changing-over.md, the rights of the controller"
        return warning("controller", "has all rights and keeps them, and so do its successors", remedy)
    return fine("controller", f"the container {CONTAINER_NAME} is replaced once, by one of the same version")
