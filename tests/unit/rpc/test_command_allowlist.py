"""The allow-list: what it accepts, what it refuses, and that no value can become more than one argument."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teg.domain.errors import Refused
from teg.domain.rpc.command_allowlist import CommandList, parse_command_list
from teg.domain.rpc.parameters import Command, NamedCall

TEXT = r"""
[commands.disk_free]
description = "Free space"
argv = ["df", "-h", "{path}"]
timeout_s = 10
[commands.disk_free.parameters.path]
type = "choice"
choices = ["/", "/data"]

[commands.ping_host]
argv = ["ping", "-c", "{count}", "{host}"]
[commands.ping_host.parameters.count]
type = "integer"
min = 1
max = 5
[commands.ping_host.parameters.host]
type = "text"
pattern = "[a-z0-9.-]+"

[commands.uptime]
argv = ["uptime"]
"""


@pytest.fixture(scope="module")
def allowed() -> CommandList:
    return parse_command_list(TEXT)


def call(name: str, timeout_s: int | None = None, **arguments: Any) -> NamedCall:
    return NamedCall(name, arguments, timeout_s)


def test_placeholders_are_filled(allowed: CommandList) -> None:
    assert allowed.command(call("disk_free", path="/data")) == Command(("df", "-h", "/data"), 10)
    assert allowed.command(call("ping_host", count=3, host="example.org")) == Command(
        ("ping", "-c", "3", "example.org"), 30
    )
    assert allowed.command(call("uptime", timeout_s=5)) == Command(("uptime",), 5)


@pytest.mark.parametrize(
    ("named", "text"),
    [
        (call("rm"), "no command 'rm' in the allow-list (there are: disk_free, ping_host, uptime)"),
        (call("disk_free"), "missing 'path' in 'args'"),
        (call("disk_free", path="/etc"), "'path' must be one of /, /data"),
        (call("disk_free", path=1), "'path' must be a string"),
        (call("disk_free", path="/", more=1), "unknown 'more' in 'args'"),
        (call("ping_host", count=6, host="a"), "'count' must be an integer from 1 to 5"),
        (call("ping_host", count="3", host="a"), "'count' must be an integer from 1 to 5"),
        (call("ping_host", count=True, host="a"), "'count' must be an integer from 1 to 5"),
        (call("ping_host", count=1, host="a; reboot"), "'host' must match [a-z0-9.-]+"),
        (call("ping_host", count=1, host="a\n"), "'host' must match [a-z0-9.-]+"),
        (call("ping_host", count=1, host="$(reboot)"), "'host' must match [a-z0-9.-]+"),
        (call("ping_host", count=1, host="a" * 300), "'host' must match [a-z0-9.-]+"),
        (call("ping_host", count=1, host="-f"), "'-f' would be read as an option"),
    ],
)
def test_what_does_not_fit_is_refused(allowed: CommandList, named: NamedCall, text: str) -> None:
    with pytest.raises(Refused) as refusal:
        allowed.command(named)
    assert str(refusal.value) == f"Running command failed: {text}"


@given(st.text(max_size=40))
def test_no_value_becomes_more_than_its_argument(value: str) -> None:
    free = parse_command_list(
        '[commands.say]\nargv = ["echo", "{text}"]\nparameters.text = { type = "text", pattern = "(?s).*" }'
    )
    try:
        command = free.command(call("say", text=value))
    except Refused:
        assert value.startswith("-") or "\0" in value
    else:
        assert command.argv == ("echo", value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[commands", "not TOML"),
        ("[other]", "unknown section 'other'"),
        ("commands = 5", "'commands' must be a table"),
        ("[commands]\nx = 5", "commands.x must be a table"),
        ('[commands.X]\nargv = ["a"]', "a name is a-z"),
        ("[commands.x]", "argv must be a list"),
        ("[commands.x]\nargv = []", "argv must be a list"),
        ('[commands.x]\nargv = "ls -l"', "argv must be a list"),
        ('[commands.x]\nargv = ["ls", 5]', "argv must be a list"),
        ('[commands.x]\nargv = ["{program}"]', "cannot be a placeholder"),
        ('[commands.x]\nargv = ["ls", "{path}"]', "placeholders and parameters differ in: path"),
        ('[commands.x]\nargv = ["ls"]\nparameters.path = { type = "integer" }', "differ in: path"),
        ('[commands.x]\nargv = ["ls"]\ntimeout_s = 61', "timeout_s must be from 1 to 60"),
        ('[commands.x]\nargv = ["ls"]\nshell = true', "unknown 'shell'"),
        ('[commands.x]\nargv = ["ls", "{p}"]\nparameters.p = { type = "any" }', "type must be"),
        ('[commands.x]\nargv = ["ls", "{p}"]\nparameters.p = { type = "text" }', "a text needs a pattern"),
        ('[commands.x]\nargv = ["ls", "{p}"]\nparameters.p = { type = "text", pattern = "(" }', "pattern '('"),
        ('[commands.x]\nargv = ["ls", "{p}"]\nparameters.p = { type = "choice" }', "choices must be"),
        ('[commands.x]\nargv = ["ls", "{p}"]\nparameters.p = { type = "integer", min = 5, max = 1 }', "min and max"),
    ],
)
def test_a_list_with_an_error_names_it(text: str, problem: str) -> None:
    with pytest.raises(Refused) as refusal:
        parse_command_list(text)
    assert problem in str(refusal.value)


def test_an_empty_list_allows_nothing() -> None:
    with pytest.raises(Refused, match=r"there are: none"):
        parse_command_list("").command(call("uptime"))
