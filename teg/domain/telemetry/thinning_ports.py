"""What is decided of archived records that are thinned, and the store that it is kept in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Undecided:
    """One archived record; `kept` is False for what was sent as a log, which always goes as it is."""

    id: int
    ts_ms: int
    kept: bool
    text: bytes


@dataclass(frozen=True, slots=True)
class KeyMemory:
    """What survives of a key: the first record of its open windows, or the value that was told last."""

    first_id: int | None = None
    ts_ms: int | None = None
    value: Any = None


@dataclass(slots=True)
class Decisions:
    """Since the last time they were written. `cut`: only these keys of the record go. `keys` None: forgotten."""

    upto_id: int
    held: list[int] = field(default_factory=list)
    cut: list[tuple[int, Sequence[str]]] = field(default_factory=list)
    own: list[tuple[int, bytes]] = field(default_factory=list)
    keys: dict[str, KeyMemory | None] = field(default_factory=dict)
    rules: str | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """What was written last: the rules' text, the last record decided, and what is remembered of each key."""

    rules: str
    upto_id: int
    keys: Mapping[str, KeyMemory]


class ThinningStore(Protocol):
    """The archive and its outbox as the decisions need them; raises Unavailable when they cannot be used now."""

    def memory(self) -> Memory: ...

    def undecided(self, after_id: int, most: int) -> list[Undecided]:
        """Records that wait, after `after_id`, ascending."""
        ...

    def archived(self, first_id: int, last_id: int, most: int) -> list[Undecided]:
        """The first records from `first_id` to `last_id`, whether they wait or not."""
        ...

    def write(self, decisions: Decisions) -> None:
        """One transaction: held ones leave the outbox and are counted, cut ones are noted, the gateway's own wait."""
        ...
