"""`teg check` tells the age of the programs that the settings need."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from teg.adapters.host import condition
from teg.console.checks import controller
from teg.console.checks.finding import Finding, Level


def found(check: Any, **settings: Any) -> Finding:
    site: Any = SimpleNamespace(settings=SimpleNamespace(**settings), gateway=None)
    [finding] = check(site)
    return finding  # type: ignore[no-any-return]


GIT = {"controller_git_path": Path("/x/.git")}
SSH = {"ota_require_signature": True}


def test_what_is_not_needed_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(condition, "program_version", lambda *_: 1 / 0)
    assert found(controller.check_git, controller_git_path=None).level is Level.SKIPPED
    assert found(controller.check_ssh, ota_require_signature=False).level is Level.SKIPPED


@pytest.mark.parametrize(
    ("said", "level"),
    [
        (None, Level.PROBLEM),
        ("git version 2.30.2", Level.PROBLEM),
        ("git version 2.39.2", Level.FINE),
        ("git version 2.50.0", Level.FINE),
    ],
)
def test_git(monkeypatch: pytest.MonkeyPatch, said: str | None, level: Level) -> None:
    monkeypatch.setattr(condition, "program_version", lambda *_: said)
    assert found(controller.check_git, **GIT).level is level


def test_an_old_ssh_cannot_check_signatures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(condition, "program_version", lambda *_: "OpenSSH_8.0p1, OpenSSL 1.1.1")
    assert found(controller.check_ssh, **SSH).level is Level.PROBLEM


def test_the_programs_of_this_machine_tell_their_versions() -> None:
    assert (condition.program_version("git", "--version") or "").startswith("git version")
    assert (condition.program_version("ssh", "-V") or "").startswith("OpenSSH")
    assert condition.program_version("no-such-program") is None
    assert condition.program_version("true") == ""
