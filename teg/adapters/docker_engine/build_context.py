"""A build context as the archive that the engine gets: bounded, without anything that could hang or lead elsewhere.

docker-py's own packing follows `.dockerignore` wherever it leads and matches its patterns with regular expressions that
a hostile pattern brings to a standstill; here matching is linear. Rules: docs.docker.com, "build context".
"""

import fnmatch
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from docker.utils.build import create_archive

from teg.domain.errors import Refused, Unavailable

MAX_FILES = 100_000
MAX_BYTES = 2 << 30
MAX_TEXT_BYTES = 1 << 20
MAX_PATTERNS = 500
MAX_PATTERN = 256
#: The Dockerfile's name in the archive: it may lie outside of the context, or be excluded by a pattern.
DOCKERFILE = ".teg.dockerfile"


@contextmanager
def packed(context: Path, dockerfile: str) -> Iterator[IO[bytes]]:
    """The archive, beside the context on the disk; the Dockerfile is in it as `DOCKERFILE`.

    Raises:
        Refused: something in the context cannot be sent, or it is too large.
        Unavailable: the disk is full.
    """
    text = _text(context / dockerfile)
    if text is None:
        raise Refused(f"the build context has no Dockerfile {dockerfile}")
    rules = parse_rules(_text(context / ".dockerignore") or "")
    files = _files(context, rules)
    try:
        with tempfile.TemporaryFile(dir=context.parent) as archive:
            create_archive(str(context), files, archive, gzip=False, extra_files=[(DOCKERFILE, text)])
            archive.seek(0)
            yield archive
    except OSError as error:
        raise Unavailable(f"the build context cannot be packed: {error}") from error


def _files(context: Path, rules: "Sequence[Rule]") -> list[str]:
    found: list[str] = []
    size = 0
    for where, directories, names in os.walk(context):
        for name in sorted((*directories, *names)):
            relative = os.path.relpath(Path(where, name), context)
            if is_excluded(relative, rules):
                continue
            size += _size(Path(where, name))
            found.append(relative)
            if len(found) > MAX_FILES or size > MAX_BYTES:
                raise Refused(f"the build context has more than {MAX_FILES} files or {MAX_BYTES >> 20} MiB")
    return found


def _size(path: Path) -> int:
    found = path.lstat()
    if stat.S_ISREG(found.st_mode):
        return found.st_size
    if stat.S_ISDIR(found.st_mode) or stat.S_ISLNK(found.st_mode):
        return 0
    raise Refused(f"{path.name} in the build context is neither a file nor a directory")


def _text(path: Path) -> str | None:
    """A text file inside or beside the context, None where there is none; raises Refused for anything else."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Refused(f"{path.name} of the build context cannot be read: {error}") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Refused(f"{path.name} of the build context is not a file")
        data = os.read(descriptor, MAX_TEXT_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(data) > MAX_TEXT_BYTES:
        raise Refused(f"{path.name} of the build context is longer than {MAX_TEXT_BYTES >> 10} KiB")
    return data.decode(errors="replace")


# --- .dockerignore -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rule:
    """One line: `parts` match the components of a path, None stands for any number of them."""

    excludes: bool
    parts: tuple[re.Pattern[str] | None, ...]

    def matches(self, components: Sequence[str]) -> bool:
        """Whether it means this path or a directory above it; with one step back at most a component."""
        at = part = 0
        retry: tuple[int, int] | None = None
        while part < len(self.parts):
            wanted = self.parts[part]
            if wanted is None:
                part += 1
                retry = (part, at)
            elif at < len(components) and wanted.fullmatch(components[at]):
                part, at = part + 1, at + 1
            elif retry is not None and retry[1] < len(components):
                part, at = retry[0], retry[1] + 1
                retry = (part, at)
            else:
                return False
        return at > 0


def parse_rules(text: str) -> list[Rule]:
    """Raises Refused for more, or longer, patterns than anybody writes."""
    lines = [line.strip() for line in text.splitlines() if not line.startswith("#")]
    lines = [line for line in lines if line.removeprefix("!").strip("/. ")]
    if len(lines) > MAX_PATTERNS or any(len(line) > MAX_PATTERN for line in lines):
        raise Refused(f".dockerignore has more than {MAX_PATTERNS} patterns, or one of over {MAX_PATTERN} characters")
    return [_rule(line) for line in lines]


def _rule(line: str) -> Rule:
    path = os.path.normpath(line.removeprefix("!").strip().lstrip("/"))
    parts: list[re.Pattern[str] | None] = []
    for name in path.split("/"):
        if name.startswith("**"):
            parts.append(None)
            name = "*" + name.lstrip("*")
            if name == "*" and path != "**":
                continue
        parts.append(re.compile(fnmatch.translate(name.replace("[^", "[!"))))
    return Rule(not line.startswith("!"), tuple(parts))


def is_excluded(path: str, rules: Sequence[Rule]) -> bool:
    """The last rule that matches decides."""
    components = path.split("/")
    return next((rule.excludes for rule in reversed(rules) if rule.matches(components)), False)
