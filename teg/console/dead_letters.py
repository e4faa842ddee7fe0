"""`teg dead-letters`: what was set aside, and why."""

import click

from teg.console.opening import open_archive, open_settings
from teg.console.wording import harmless, moment


@click.command("dead-letters")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000))
@click.option("--show", "shown", type=int, metavar="ID", help="The whole record of this number.")
def dead_letters(limit: int, shown: int | None) -> None:
    """Records that were set aside, newest first, each with its reason.

    To send them again or to drop them, call 'dead_letters' from ThingsBoard (docs/rpc.md).
    """
    if shown is not None:
        _show(shown)
        return
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
