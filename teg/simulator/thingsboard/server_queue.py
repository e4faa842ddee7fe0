"""What the server has acknowledged and not yet stored: the queue in front of its rule engine.

Source: ThingsBoard's in-memory queue with the strategies BURST and SKIP_ALL_FAILURES, as a real 4.2.1 behaved:
PUBACK means queued; a killed server forgets what was queued.
"""

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from teg.simulator.thingsboard.rpc import Schedule, Timer

Kind = Literal["telemetry", "client attributes"]
#: In which order the messages of one pack are stored. The real server promises none; "attributes_first" is the
#: worst for a client that takes an attribute it reads back for a proof of what it sent before.
PackOrder = Literal["any", "attributes_first"]

#: A pack is stored in so many shares, so that a crash can come in its midst.
SHARES = 10


@dataclass(frozen=True, slots=True)
class Message:
    kind: Kind
    store: Callable[[], None]


class StoreSettings(Protocol):
    """Read anew for every pack."""

    store_delay_s: float
    pack_order: PackOrder


class ServerQueue:
    """Packs of messages of all kinds; the next pack begins when the last message of one has been stored.

    Touched on the server's loop only. Without a delay, and with nothing waiting, `put` stores at once.
    """

    def __init__(self, schedule: Schedule, settings: StoreSettings, pack_size: int) -> None:
        self._schedule = schedule
        self._settings = settings
        self._pack_size = pack_size
        self._random = random.Random(0)
        self._waiting: deque[Message] = deque()
        self._pack: deque[Message] = deque()
        self._timer: Timer | None = None

    def __len__(self) -> int:
        return len(self._pack) + len(self._waiting)

    @property
    def is_immediate(self) -> bool:
        return not self._settings.store_delay_s and not len(self)

    def put(self, kind: Kind, store: Callable[[], None]) -> None:
        """Run `store` when it is this message's turn, never if the server crashes before."""
        if self.is_immediate:
            store()
            return
        self._waiting.append(Message(kind, store))
        if not self._pack:
            self._begin_pack()

    def drain(self) -> None:
        """An orderly stop: everything is stored before the server goes."""
        self._cancel()
        self._store([*self._pack, *self._waiting])
        self._pack.clear()
        self._waiting.clear()

    def forget(self) -> int:
        """A crash: return how many messages nobody will ever store."""
        self._cancel()
        lost = len(self)
        self._pack.clear()
        self._waiting.clear()
        return lost

    def _begin_pack(self) -> None:
        size = min(self._pack_size, len(self._waiting))
        pack = [self._waiting.popleft() for _ in range(size)]
        self._random.shuffle(pack)
        if self._settings.pack_order == "attributes_first":
            pack.sort(key=lambda message: message.kind != "client attributes")
        self._pack.extend(pack)
        self._await_share(-(-size // SHARES))

    def _await_share(self, size: int) -> None:
        self._timer = self._schedule(self._settings.store_delay_s / SHARES, lambda: self._store_share(size))

    def _store_share(self, size: int) -> None:
        self._store([self._pack.popleft() for _ in range(min(size, len(self._pack)))])
        if self._pack:
            self._await_share(size)
        elif self._waiting:
            self._begin_pack()

    @staticmethod
    def _store(messages: list[Message]) -> None:
        for message in messages:
            message.store()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
