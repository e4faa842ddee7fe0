"""MQTT 5's topic aliases: a topic that is used again and again is sent once, and a number from then on."""

import threading
from collections.abc import Sequence

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties


class TopicAliases:
    """Of one connection: an alias ends with it (MQTT 5, 3.3.2.3.4).

    The topic goes along until a message with it was acknowledged. Publishes of two threads may leave in another order
    than they were numbered in, and a number that the server has not been told ends the connection.
    """

    def __init__(self, topics: Sequence[str], most: int) -> None:
        """`topics` are worth a number, the first ones most; `most` is the server's Topic Alias Maximum, 0 = none."""
        self._numbers = {topic: number for number, topic in enumerate(topics[:most], start=1)}
        self._teaching: dict[int, str] = {}
        self._known: set[str] = set()
        self._lock = threading.Lock()

    def addressed(self, topic: str) -> tuple[str, Properties | None]:
        """What to publish with: a topic or nothing, and the properties, None where there is no alias."""
        number = self._numbers.get(topic)
        if number is None:
            return topic, None
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.TopicAlias = number
        with self._lock:
            return "" if topic in self._known else topic, properties

    def sent(self, mid: int, topic: str) -> None:
        """The message with this packet id carried `topic` in full."""
        with self._lock:
            if topic in self._numbers and topic not in self._known:
                self._teaching[mid] = topic

    def acknowledged(self, mid: int) -> None:
        with self._lock:
            if (topic := self._teaching.pop(mid, None)) is not None:
                self._known.add(topic)
