"""Which version of MQTT to speak with this server: the newest that it answers."""

import logging
from collections.abc import Sequence

from paho.mqtt.client import MQTTv5, MQTTv311

logger = logging.getLogger("gateway.session")

NAMES: dict[int, str] = {MQTTv311: "MQTT 3.1.1", MQTTv5: "MQTT 5"}
#: An old server closes on a version that it does not know without an answer; one that knew it may have been restarted.
MISSES_AT_FIRST, MISSES_LATER = 1, 5


class ProtocolVersion:
    """Remembered as long as the process lives: a server that was upgraded is asked again at the next start."""

    def __init__(self, wanted: Sequence[int]) -> None:
        self._wanted = list(wanted)
        self._misses = 0
        self._answered = False

    @property
    def number(self) -> int:
        return self._wanted[0]

    @property
    def name(self) -> str:
        return NAMES[self.number]

    def ended(self, answered: bool, closed_unanswered: bool) -> None:
        """`answered`: a CONNACK came that does not refuse the version."""
        if answered:
            self._misses, self._answered = 0, True
        elif closed_unanswered:
            self._misses += 1
            if self._misses >= (MISSES_LATER if self._answered else MISSES_AT_FIRST):
                self._next()

    def _next(self) -> None:
        self._wanted.append(self._wanted.pop(0))
        self._misses, self._answered = 0, False
        if len(self._wanted) > 1:
            logger.info("the server does not answer %s: %s is tried next", NAMES[self._wanted[-1]], self.name)
