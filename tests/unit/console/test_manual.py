"""The manual page is made from the commands, and man and bash understand what is made."""

import shutil
import subprocess

import click
import pytest

from teg.console.main import COMMANDS, main
from teg.console.manual import completion, manual


def test_every_command_and_option_is_in_the_manual() -> None:
    text = manual().replace("\\-", "-")
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        assert command is not None
        assert f"teg {name}" in text
        for each in command.params:
            if isinstance(each, click.Option) and not each.hidden:
                assert each.opts[0] in text


def test_what_stands_below_a_command_is_in_it_too() -> None:
    text = manual().replace("\\-", "-")
    assert "teg dead-letters retry" in text
    assert "teg archive import" in text
    assert "--own-token" in text


def test_no_line_of_text_is_a_request() -> None:
    requests = {line.split()[0] for line in manual().splitlines() if line.startswith((".", "'"))}
    assert requests <= {".TH", ".SH", ".SS", ".PP", ".TP"}


@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")
def test_groff_has_nothing_to_complain() -> None:
    done = subprocess.run(["groff", "-man", "-ww", "-Tutf8", "-Kutf8"], input=manual(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_bash_reads_the_completion() -> None:
    text = completion()
    assert "_TEG_COMPLETE=bash_complete" in text
    assert subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True).stderr == ""
