"""Versions as programs tell them, against the table; the page names the same figures."""

import re
import subprocess
from pathlib import Path

import pytest

from teg.console.checks.finding import Level, aged
from teg.domain.minimum_versions import MINIMUM, Judgement, advice, dotted, judge_version, parse_version_number

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "security.md").read_text()


@pytest.mark.parametrize(
    ("program", "text", "judgement"),
    [
        ("git", "git version 2.39.5", Judgement.GOOD),
        ("git", "git version 2.39.2 (Apple Git-143)", Judgement.OPEN),
        ("git", "git version 2.30.2", Judgement.TOO_OLD),
        ("docker", "20.10.24+dfsg1", Judgement.OPEN),
        ("docker", "28.2.2", Judgement.GOOD),
        ("docker", "19.03.15", Judgement.TOO_OLD),
        ("runc", "1.1.5+ds1", Judgement.OPEN),
        ("runc", "1.3.3", Judgement.GOOD),
        ("runc", "1.0.0-rc93", Judgement.TOO_OLD),
        ("ssh", "OpenSSH_9.2p1 Debian-2+deb12u6, OpenSSL 3.0.19", Judgement.GOOD),
        ("sqlite", "3.40.1", Judgement.OPEN),
        ("sqlite", "3.50.10", Judgement.GOOD),
        ("runc", "", Judgement.UNKNOWN),
        ("runc", "of an unknown version", Judgement.UNKNOWN),
    ],
)
def test_what_is_said_of_a_version(program: str, text: str, judgement: Judgement) -> None:
    assert judge_version(program, text) is judgement
    assert bool(advice(program, judgement)) == (judgement in (Judgement.OPEN, Judgement.TOO_OLD))


def test_this_machines_git_is_understood() -> None:
    said = subprocess.run(["git", "--version"], capture_output=True, text=True, check=True).stdout
    assert parse_version_number(said) is not None


@pytest.mark.parametrize("program", MINIMUM)
def test_the_page_has_the_same_figures(program: str) -> None:
    minimum = MINIMUM[program]
    [row] = re.findall(rf"^\| {program} \|.*$", PAGE, re.MULTILINE)
    assert [dotted(minimum.needed), dotted(minimum.mended)] == [cell.strip() for cell in row.split("|")[2:4]]
    assert minimum.needed <= minimum.mended


def test_teg_check_refuses_what_is_too_old_and_hints_at_an_open_hole() -> None:
    old = aged("container runtime", "runc", "1.0.3", "runc {}")
    assert old.level is Level.PROBLEM and "1.1 is needed" in old.text
    hole = aged("docker", "docker", "20.10.24+dfsg1", "{} at unix:///x")
    assert hole.level is Level.FINE and "20.10.24+dfsg1 at unix:///x (before docker 25.0.2" in hole.text
    assert aged("docker", "docker", "28.2.2", "{}").text == "28.2.2"
