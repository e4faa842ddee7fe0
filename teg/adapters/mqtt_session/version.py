"""Which version of MQTT to speak with this server: the newest that it answers."""

import logging
from collections.abc import Sequence
from typing import Protocol

from paho.mqtt.client import MQTTv5, MQTTv311

logger = logging.getLogger("gateway.session")

NAMES: dict[int, str] = {MQTTv311: "MQTT 3.1.1", MQTTv5: "MQTT 5"}
#: An old server closes on a version that it does not know without an answer; one that knew it may have been restarted.
MISSES_AT_FIRST, MISSES_LATER = 1, 5


class VersionMemory(Protocol):
    """Which version this server answered last, over the end of the process."""

    def read(self, newest: int) -> int | None: ...
    def keep(self, version: int) -> None: ...
    def forget(self) -> None: ...


class ProtocolVersion:
    """What the server answered is kept, in `memory` also over a restart, until it does not answer that any more."""

    def __init__(self, wanted: Sequence[int], memory: VersionMemory | None = None) -> None:
        """`wanted`: the versions to try, the newest first. Of a single one nothing needs to be remembered."""
        self._wanted = list(wanted)
        self._memory = memory if len(self._wanted) > 1 else None
        self._remembered: int | None = None
        self._asked = False
        self._misses = 0
        self._answered = False

    @property
    def number(self) -> int:
        if not self._asked:
            self._asked = True
            self._recall()
        return self._wanted[0]

    @property
    def name(self) -> str:
        return NAMES[self.number]

    def _recall(self) -> None:
        """Only at the first connection: nothing is open yet when a session is made."""
        if self._memory is None:
            return
        found = self._memory.read(newest=self._wanted[0])
        if found in self._wanted:
            self._remembered, self._answered = found, True
            self._wanted.sort(key=lambda version: version != found)

    def ended(self, answered: bool, closed_unanswered: bool, refused: bool = False) -> None:
        """`answered`: a CONNACK came that does not refuse the version; `refused`: one came that does."""
        if answered:
            self._misses, self._answered = 0, True
            self._remember()
        elif closed_unanswered:
            self._misses += 1
            if refused or self._misses >= (MISSES_LATER if self._answered else MISSES_AT_FIRST):
                self._next()

    def _remember(self) -> None:
        if self._memory is not None and self._remembered != self.number:
            self._remembered = self.number
            self._memory.keep(self.number)

    def _next(self) -> None:
        self._wanted.append(self._wanted.pop(0))
        self._misses, self._answered = 0, False
        if self._memory is not None and self._remembered is not None:
            self._remembered = None
            self._memory.forget()
        if len(self._wanted) > 1:
            logger.info("the server does not answer %s: %s is tried next", NAMES[self._wanted[-1]], self.name)
