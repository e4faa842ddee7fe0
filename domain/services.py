"""The running gateway as the tasks see it: one typed, frozen record, filled by the composition root.

A queue erases object references, so tasks look their collaborators up here (`huey.services`) and nowhere else.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything a task may call. `stopping` is set when the consumer begins to stop: lingering work ends then."""

    stopping: threading.Event = field(default_factory=threading.Event)

    def stop(self) -> None:
        self.stopping.set()
