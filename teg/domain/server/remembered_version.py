"""Which version of MQTT the server of these settings answered last, kept over restarts."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from teg.domain.errors import Unavailable
from teg.domain.ports import State

logger = logging.getLogger("gateway.session")

VERSION_KEY = "server.mqtt_version"
#: A server that did not speak the newest version is asked for it again after this: it may have been upgraded.
ASKED_AGAIN_AFTER_MS = 7 * 86_400_000


class RememberedVersion:
    """Read once a life, written when the answer changes: a connection costs no write.

    A memory that cannot be read or written is none: the versions are tried as if the server were new.
    """

    def __init__(self, state: State, server: str, now_ms: Callable[[], int]) -> None:
        """`server` is what the memory holds for, e.g. host and port: another one has another memory."""
        self._state = state
        self._server = server
        self._now_ms = now_ms

    def read(self, newest: int) -> int | None:
        """The number of the version; one that is older than `newest` is forgotten after a week."""
        try:
            found: Any = self._state.get(VERSION_KEY)
        except Unavailable:
            return None
        if not isinstance(found, Mapping) or found.get("server") != self._server:
            return None
        version, since_ms = found.get("version"), found.get("since_ms")
        if not isinstance(version, int) or not isinstance(since_ms, int):
            return None
        age_ms = self._now_ms() - since_ms
        return version if version == newest or 0 <= age_ms < ASKED_AGAIN_AFTER_MS else None

    def keep(self, version: int) -> None:
        value = {"server": self._server, "version": version, "since_ms": self._now_ms()}
        self._tried(lambda: self._state.put(VERSION_KEY, value))

    def forget(self) -> None:
        self._tried(lambda: self._state.delete(VERSION_KEY))

    def _tried(self, write: Callable[[], None]) -> None:
        try:
            write()
        except Unavailable as reason:
            logger.info("which version of MQTT the server speaks cannot be noted: %s", reason)
