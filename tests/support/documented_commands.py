"""The commands that README and docs show: what stands in a block of code for a shell."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHELLS = {"bash", "sh", "shell", "console"}
_FENCED = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
#: After a blank line, and not a list's continuation, which begins with a word of prose.
_INDENTED = re.compile(r"(?:(?<=\n\n)|\A)((?: {4}\S.*\n(?: {4}.*\n|\n(?= {4}))*))")
_SETTING = re.compile(r"(export )?[A-Z][A-Z0-9_]*=\S*( +#.*)?\Z")


class Command(NamedTuple):
    page: str
    text: str


def commands() -> Iterator[Command]:
    """Line by line, without comments, `sudo` and prompts; lines that end in a backslash are one."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        fenced = [body for language, body in _FENCED.findall(text) if language in SHELLS]
        for block in [*fenced, *_INDENTED.findall(_FENCED.sub("", text))]:
            for line in re.sub(r" *\\\n\s*", " ", block).splitlines():
                if command := _plain(line):
                    yield Command(page.name, command)


def _plain(line: str) -> str:
    text = re.sub(r"(^|\s)#.*", "", line).strip().removeprefix("$ ")
    text = re.sub(r"\Asudo (-u \w+ )?", "", text).strip()
    return "" if _SETTING.fullmatch(text) else text
