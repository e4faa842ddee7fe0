"""Where versions of ThingsBoard behave differently, as data."""

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerVersion:
    #: A package with an external URL and no checksum algorithm: the server fails inside and sets no attribute at all.
    url_package_needs_algorithm: bool


#: In the order of the releases.
VERSIONS: Mapping[str, ServerVersion] = {
    "4.2.1": ServerVersion(url_package_needs_algorithm=True),
    "4.2.1.1": ServerVersion(url_package_needs_algorithm=False),
}


def behaviour_of(version: str) -> ServerVersion:
    """That of the last known release which is not newer; of an unknown one, that of the newest."""
    numbers = _numbers(version)
    if not numbers:
        return list(VERSIONS.values())[-1]
    older = [known for name, known in VERSIONS.items() if _numbers(name) <= numbers]
    return older[-1] if older else next(iter(VERSIONS.values()))


def _numbers(version: str) -> tuple[int, ...]:
    """4.2.1.1PE -> (4, 2, 1, 1)"""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()
