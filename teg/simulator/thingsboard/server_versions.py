"""Where versions of ThingsBoard behave differently, as data."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerVersion:
    #: A package with an external URL and no checksum algorithm: the server fails inside and sets no attribute at all.
    url_package_needs_algorithm: bool


VERSIONS: Mapping[str, ServerVersion] = {
    "4.2.1": ServerVersion(url_package_needs_algorithm=True),
    "4.2.1.1": ServerVersion(url_package_needs_algorithm=False),
}
