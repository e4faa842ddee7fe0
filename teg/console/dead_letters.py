"""`teg dead-letters`: what was set aside, and why."""

import click

from teg.console.opening import open_archive, open_settings
from teg.console.wording import harmless


@click.command("dead-letters")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000))
def dead_letters(limit: int) -> None:
    """Records that were set aside, newest first, each with its reason."""
    with open_archive(open_settings(server_needed=False)) as archive:
        letters = archive.dead_letters(limit)
    for letter in letters:
        click.echo(f"#{letter['id']}  inbox row {letter['inbox_row']}  {harmless(letter['reason'])}")
        click.echo(f"    {harmless(letter['message'], 200)}")
    if not letters:
        click.echo("nothing was set aside")
