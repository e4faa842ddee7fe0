"""Records that were stamped before the clock was set, and what they should have been stamped.

A device without a battery-backed clock starts in 1970, or where it stopped (fake-hwclock), until NTP has answered.
Records of that time carry a wrong `ts`. The archive keeps *anchors*: which records were archived when, by the wall
clock and by the monotonic time of this boot, so of each record both are known. When the wall clock jumps against the
monotonic one the records that still wait, and whose `ts` is what the wrong clock showed then, are moved by the jump.

Moved is only what was archived in the boot of the jump, by a clock that was not synchronised before, forwards, by the
first such jump of that boot; not what was sent already, and not what had another time (a controller with a GPS clock).
"""

import logging
from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import pairwise
from typing import Protocol

from teg.domain.ports import Clock

logger = logging.getLogger("gateway.clock")

#: A batch that comes so long after the last anchor makes a new one.
ANCHOR_EVERY_MS = 30_000
#: Less is left alone; it is more than the time within which it is known when a record was archived.
LEAST_STEP_MS = 60_000
#: Between what the controller stamped and what we saw.
SLACK_MS = 2_000
#: Rows that were in the inbox at the moment of the jump may be archived later.
LATE_S = 600.0
LOOK_AGAIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Anchor:
    """From `first_record` and `first_letter` on was archived from this moment on, in boot `boot`.

    `since_ms` is when this process began, in the boot's time; nothing that it met before is known.
    """

    first_record: int
    first_letter: int
    boot: bytes
    boottime_ms: int
    wall_ms: int
    since_ms: int
    synchronised: bool

    @property
    def offset_ms(self) -> int:
        return self.wall_ms - self.boottime_ms


@dataclass(frozen=True, slots=True)
class Step:
    """The clock was set. `before`: that boot's anchors under the wrong clock; `after`: the first under the right."""

    before: Sequence[Anchor]
    after: Anchor
    end_record: int | None  #: the next boot's first
    end_letter: int | None
    _firsts: list[int] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_firsts", [anchor.first_record for anchor in self.before])

    @property
    def shift_ms(self) -> int:
        return self.after.offset_ms - self.before[-1].offset_ms

    def moves_record(self, record_id: int, ts_ms: int) -> bool:
        if record_id >= self.after.first_record:  # archived later, stamped before
            return self._stamped_between(self.before[-1], ts_ms, self.after.boottime_ms)
        anchor = self.before[max(0, bisect_right(self._firsts, record_id) - 1)]
        return self._stamped_between(anchor, ts_ms, min(anchor.boottime_ms + ANCHOR_EVERY_MS, self.after.boottime_ms))

    def moves_letter(self, ts_ms: int) -> bool:
        return self._stamped_between(self.before[-1], ts_ms, self.after.boottime_ms)

    def _stamped_between(self, anchor: Anchor, ts_ms: int, latest_ms: int) -> bool:
        earliest_ms = min(other.since_ms for other in self.before)
        return earliest_ms - SLACK_MS <= ts_ms - anchor.offset_ms <= latest_ms + SLACK_MS


def steps(anchors: Sequence[Anchor]) -> list[Step]:
    """The first jump forwards of each boot, if its clock was not synchronised before."""
    found: list[Step] = []
    begin = 0
    for place, (one, after) in enumerate(pairwise(anchors), 1):
        if after.boot != one.boot:
            begin = place
        elif _sets(one, after) and not (found and found[-1].after.boot == one.boot):
            end = next((later for later in anchors[place:] if later.boot != one.boot), None)
            ends = (None, None) if end is None else (end.first_record, end.first_letter)
            found.append(Step(tuple(anchors[begin:place]), after, *ends))
    return found


def _sets(one: Anchor, after: Anchor) -> bool:
    return after.offset_ms - one.offset_ms >= LEAST_STEP_MS and not one.synchronised


class Anchors(Protocol):
    """Where the anchors are kept, and the records that they are about."""

    def anchor_now(self) -> None:
        """Keep an anchor of this moment."""
        ...

    def anchors(self) -> list[Anchor]: ...

    def move(self, step: Step, skip: Collection[int]) -> int:
        """Move what waits and was not moved before, in slices; returns how many."""
        ...


class ClockSteps:
    """What the publisher asks before it sends; used by one thread at a time."""

    def __init__(self, anchors: Anchors, clock: Clock, moved: Callable[[int, int], None] = lambda *_: None) -> None:
        """`moved(records, shift_ms)` tells the server."""
        self._anchors = anchors
        self._clock = clock
        self._moved = moved
        self._offset_ms: int | None = None
        self._open: list[Step] = []
        self._due_s = float("-inf")

    @property
    def due(self) -> bool:
        """True when records may have to be moved before anything is sent.

        Raises:
            Unavailable: the archive cannot be used now.
        """
        now_s = self._clock.monotonic_s()
        offset_ms = self._clock.now_ms() - round(now_s * 1000)
        if self._offset_ms is None or abs(offset_ms - self._offset_ms) >= LEAST_STEP_MS // 2:
            self._anchors.anchor_now()
            self._open = steps(self._anchors.anchors())
            self._offset_ms, self._due_s = offset_ms, float("-inf")
        return bool(self._open) and now_s >= self._due_s

    def apply(self, skip: Collection[int] = ()) -> None:
        """Only while nothing is on its way. `skip`: what may have been sent.

        Raises:
            Unavailable: the archive cannot be written now; what was moved is, the rest is tried again.
        """
        for step in self._open:
            if records := self._anchors.move(step, skip):
                logger.warning(
                    "the clock was set %d s forwards: %d records that wait were stamped before and are moved by as"
                    " much; the archive keeps what the controller wrote",
                    *(step.shift_ms // 1000, records),
                )
                self._moved(records, step.shift_ms)
        now_s = self._clock.monotonic_s()
        boot = boot_name(self._clock.boot_id())
        self._open = [
            step for step in self._open if step.after.boot == boot and now_s < step.after.boottime_ms / 1000 + LATE_S
        ]
        self._due_s = now_s + LOOK_AGAIN_S


def boot_name(boot_id: str) -> bytes:
    """Eight bytes are enough to tell the boots of one machine apart."""
    return blake2b(boot_id.encode(), digest_size=8).digest()
