"""A package as the server assigns it."""

from typing import Any

PACKAGE: dict[str, Any] = {"sw_size": 10, "sw_checksum": "ab" * 32, "sw_checksum_algorithm": "SHA256"}
