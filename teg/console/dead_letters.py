"""`teg dead-letters`: what was set aside, and why; sent again or dropped."""

import click

from teg.console.opening import open_archive, open_settings
from teg.console.own_archive import order
from teg.console.wording import harmless, moment

IDS = click.argument("ids", nargs=-1, type=int, metavar="[ID]...")
ALL = click.option("--all", "every", is_flag=True, help="Every one that there is now.")


@click.group("dead-letters", invoke_without_command=True)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000))
@click.option("--show", "shown", type=int, metavar="ID", help="The same as 'show ID'.")
@click.pass_context
def dead_letters(context: click.Context, limit: int, shown: int | None) -> None:
    """Records that were set aside, newest first, each with its reason; or 'retry' and 'drop' them.

    Beside a running gateway and without one.
    """
    if context.invoked_subcommand is None:
        _list(limit) if shown is None else _show(shown)


@dead_letters.command()
@click.argument("letter", type=int, metavar="ID")
def show(letter: int) -> None:
    """The whole record of one number."""
    _show(letter)


@dead_letters.command()
@IDS
@ALL
def retry(ids: tuple[int, ...], every: bool) -> None:
    """Look at records again by today's rules, and send those that are acceptable now; the others stay."""
    _order("retry", ids, every)


@dead_letters.command()
@IDS
@ALL
@click.confirmation_option("--yes", prompt="They are then gone for good. Drop them?")
def drop(ids: tuple[int, ...], every: bool) -> None:
    """Delete records that were set aside."""
    _order("drop", ids, every)


def _order(action: str, ids: tuple[int, ...], every: bool) -> None:
    if bool(ids) == every:
        raise click.UsageError("name the records by their numbers, or say --all")
    params = {"action": action, "ids": "all" if every else list(ids)}
    click.echo(order(open_settings(server_needed=False), "dead_letters", params))


def _list(limit: int) -> None:
    with open_archive(open_settings(server_needed=False)) as archive:
        letters = archive.dead_letters(limit)
    for letter in letters:
        click.echo(f"#{letter['id']}  inbox row {letter['inbox_row']}  {harmless(letter['reason'])}")
        click.echo(f"    {harmless(letter['message'], 200)}")
    if not letters:
        click.echo("nothing was set aside")


def _show(letter_id: int) -> None:
    with open_archive(open_settings(server_needed=False)) as archive:
        letter = archive.dead_letter(letter_id)
    if letter is None:
        raise click.ClickException(f"there is no dead letter #{letter_id}")
    click.echo(f"#{letter['id']}  inbox row {letter['inbox_row']}  set aside {moment(letter['set_aside_ms'])}")
    click.echo(harmless(letter["reason"]))
    click.echo(harmless(letter["message"].decode(errors="replace"), len(letter["message"]) + 1))
