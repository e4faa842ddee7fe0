"""Which addresses a version may be fetched from: plain protocols of Git, or a directory that is read as data."""

import re
from pathlib import Path

from teg.domain.errors import Refused
from teg.domain.redaction import redacted_text

_NETWORK = re.compile(r"(https?|ssh|git)://(?!-)[^\s/-][^\s]*")
_SCP = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]*@)?[A-Za-z0-9][A-Za-z0-9.-]*:(?![:/]{2})(?!:)\S+")
_LOCAL = re.compile(r"(?:file://)?(/.*)", re.DOTALL)


def local_path(url: str) -> Path | None:
    """The directory that `url` names, None for an address in the network; raises Refused for anything else."""
    if (local := _LOCAL.fullmatch(url)) is not None and "\0" not in url:
        return Path(local[1])
    if _NETWORK.fullmatch(url) or _SCP.fullmatch(url):
        return None
    raise Refused(
        f"the remote {redacted_text(url)[:120]!r} of the controller repository is not allowed: use https, ssh or a path"
    )
