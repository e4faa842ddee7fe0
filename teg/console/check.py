"""`teg check`: everything that has to be right, one line each, what is wrong first and with its remedy."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from typing import TypeVar

import click

from teg.console.checks import configuration, controller, machine, server, storage
from teg.console.checks.finding import Check, Finding, Level, Site, problem, skipped, warning
from teg.console.opening import ask_gateway
from teg.console.wording import harmless
from teg.domain.errors import Refused, Unavailable
from teg.settings import InvalidSettings, Settings

Seen = TypeVar("Seen")

#: In the order in which one thing depends on another; within a level they are shown like this.
CHECKS: tuple[Check, ...] = (
    configuration.check_names,
    configuration.check_quotes,
    configuration.check_env_file,
    configuration.check_provisioning,
    configuration.check_run_command,
    configuration.check_report,
    machine.check_clock,
    machine.check_disk,
    storage.check_data_path,
    storage.check_token_file,
    storage.check_database,
    storage.check_queue,
    storage.check_file_roots,
    storage.check_remote_files,
    server.check_client_certificate,
    server.check_way,
    server.check_token,
    controller.check_docker,
    controller.check_git,
    controller.check_ssh,
    controller.check_repository,
    controller.check_inbox,
    controller.check_confinement,
    machine.check_time_source,
    machine.check_write_speed,
    machine.check_inodes,
    machine.check_wear,
    machine.check_power,
    machine.check_memory,
    machine.check_python,
    machine.check_sqlite,
    storage.check_backlog,
    storage.check_gateway,
)
#: Those of them that need no settings.
MACHINE_CHECKS = (
    machine.check_clock,
    machine.check_time_source,
    machine.check_wear,
    machine.check_power,
    machine.check_memory,
    machine.check_python,
    machine.check_sqlite,
)
EXIT_CODES = {Level.PROBLEM: 2, Level.WARNING: 1}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of lines.")
def check(as_json: bool) -> None:
    """Look at everything that has to be right; say what is not, and what to do.

    Safe beside a running gateway: it changes nothing and opens no second session. Exits with 0 when all is well, 1
    when there are warnings (!), 2 when there are problems (✗).
    """
    found = sorted(findings(), key=lambda each: each.level.value)
    if as_json:
        click.echo(json.dumps([_as_dict(each) for each in found]))
    else:
        for each in found:
            click.echo(str(each))
    raise SystemExit(EXIT_CODES.get(found[0].level, 0))


def findings() -> list[Finding]:
    try:
        settings = Settings.from_environment()
    except InvalidSettings as refused:
        return _without_settings(refused)
    site = Site(settings, _gateway(settings))
    return [found for each in CHECKS for found in looked_at(each, site)]


def _without_settings(refused: InvalidSettings) -> list[Finding]:
    """What is wrong with them, what may be the reason, and the machine, which needs none."""
    return [
        *(problem("settings", text, _remedy(text)) for text in refused.problems),
        *configuration.odd_settings(refused.notices),
        *(found for each in MACHINE_CHECKS for found in looked_at(each, None)),
        skipped("everything else", "not looked at: the settings come first"),
    ]


def _remedy(text: str) -> str:
    return "sudo teg init asks for it (docs/settings.md)" if text.endswith("is not set") else "see docs/settings.md"


def looked_at(check: Callable[[Seen], Iterator[Finding]], site: Seen) -> Iterator[Finding]:
    """One check that cannot look must not keep the others from being shown."""
    try:
        yield from check(site)
    except (OSError, sqlite3.Error, ValueError, Unavailable, Refused) as reason:
        subject = check.__name__.removeprefix("check_").replace("_", " ")
        yield warning(subject, f"cannot be looked at: {harmless(str(reason))}", "see the other lines, and try again")


def _gateway(settings: Settings) -> dict[str, object] | None:
    try:
        return ask_gateway(settings.data_path)
    except Unavailable:  # it hangs, or is not ours to ask: check_gateway says so
        return None


def _as_dict(found: Finding) -> dict[str, str]:
    return {
        "level": found.level.name.lower(),
        "subject": found.subject,
        "text": found.text,
        "remedy": found.remedy,
    }
