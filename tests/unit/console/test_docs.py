"""The operators' pages: every message is in the index, every command exists, every link leads somewhere."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from teg.console.main import COMMANDS, main

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
TROUBLESHOOTING = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
INDEX = TROUBLESHOOTING.partition("## Messages of the gateway")[2]
LEVELS = {"warning", "error", "exception", "critical"}
ROOMS = ("gateway.py", "tasks", "producers", "teg/adapters", "teg/domain", "teg/wiring")


def messages() -> Iterator[tuple[str, str]]:
    """(where, text) of every line that can be logged at WARNING or above; what is filled in is shown as `…`."""
    for room in ROOMS:
        path = ROOT / room
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and (text := _logged(node)) is not None:
                    yield f"{file.relative_to(ROOT)}:{node.lineno}", re.sub(r"%[-+.0-9]*[a-z]", "…", text)


def _logged(call: ast.Call) -> str | None:
    function = call.func
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id == "logger":
        if function.attr in LEVELS:
            return _text(call.args[0])
        if function.attr == "log":  # its level is worked out: it may be a warning
            return _text(call.args[1])
    if isinstance(function, ast.Name) and function.id == "log":  # `log = logger.info if … else logger.warning`
        return _text(call.args[0])
    return None


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return {"advice.text": "…; next try in … s"}.get(ast.unparse(node), f"not a literal: {ast.unparse(node)}")


#: Logged below WARNING, whatever `logger.log` looks like.
QUIET = {"RPC … (id …) answered"}


def test_every_message_is_in_the_index_and_no_other() -> None:
    found = {text: where for where, text in messages() if text not in QUIET}
    indexed = re.findall(r"^\| `(.+?)` \| .+ \|$", INDEX, re.MULTILINE)
    missing = {text: where for text, where in found.items() if text not in indexed}
    assert not missing, f"docs/troubleshooting.md, 'Messages of the gateway', needs a row for each of: {missing}"
    assert not set(indexed) - set(found), "messages that no longer exist"
    assert indexed == sorted(indexed, key=str.lower), "the index is in the order of the alphabet"


def test_the_collector_sees_what_there_is() -> None:
    assert len(dict(messages())) >= 50
    assert any("TB_TLS=off" in text for _, text in messages())


COMMAND_LINE = re.compile(r"(?:^|[`(/ ])(?<!-u )teg ([a-z][a-z-]*)((?: --?[a-z][a-z-]*)*)", re.MULTILINE)


def shown_commands() -> Iterator[tuple[str, str, list[str]]]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        code = re.findall(r"```.*?```|`[^`\n]+`|^    .+$", text, re.MULTILINE | re.DOTALL)
        for snippet in code:
            for name, options in COMMAND_LINE.findall(snippet):
                yield page.name, name, options.split()


def test_every_command_in_the_documents_exists_with_its_options() -> None:
    shown = list(shown_commands())
    assert {"status", "check", "backup", "restore"} <= {name for _, name, _ in shown}
    for page, name, options in shown:
        assert name in COMMANDS, f"{page}: teg {name}"
        command = main.get_command(click.Context(main), name)
        assert command is not None
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert set(options) <= known, f"{page}: teg {name} {options}"


LINK = re.compile(r"\]\(([^)#\s]*)(#[^)\s]*)?\)")


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {"#" + re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(path), f"{page.name}: {target}{anchor}"
