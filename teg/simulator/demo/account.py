"""What the demo counts, and what follows from it. A value is one (key, ts); the controller's keys only are compared."""

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Recorded:
    """The controller's own account (`--account-file`)."""

    records: int = 0
    values: Mapping[str, int] = field(default_factory=dict)  #: key -> how many

    @property
    def total(self) -> int:
        return sum(self.values.values())


@dataclass(frozen=True, slots=True)
class OnTheWay:
    """Rows in the controller's inbox, records in the gateway's archive that are not published, rows set aside."""

    inbox: int = 0
    archive: int = 0
    set_aside: int = 0


@dataclass(frozen=True, slots=True)
class Arrived:
    """What the server says about our device."""

    connected: bool = False
    values: Mapping[str, int] = field(default_factory=dict)  #: key -> how many different ts
    latest: Mapping[str, Any] = field(default_factory=dict)
    duplicated: int = 0
    publishes: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything the view shows, at one moment."""

    elapsed_s: float
    recorded: Recorded = Recorded()
    on_the_way: OnTheWay = OnTheWay()
    arrived: Arrived = Arrived()
    first_arrival_s: float | None = None
    phase: str = "running"
    backlog: tuple[int, ...] = ()  #: values on the way, twice a second, the newest last

    @property
    def delivered(self) -> int:
        """Values of the controller that the server has; the gateway's own telemetry does not count."""
        return sum(min(count, self.arrived.values.get(key, 0)) for key, count in self.recorded.values.items())

    @property
    def missing(self) -> int:
        """On the way as long as everything runs, lost when it is still so at the end."""
        return self.recorded.total - self.delivered

    @property
    def is_settled(self) -> bool:
        """Nothing of the controller's is on the way any more (the gateway always has log lines of its own)."""
        return not (self.missing or self.on_the_way.inbox)

    @property
    def connection(self) -> str:
        return "connected" if self.arrived.connected else "not connected"

    def account(self) -> str:
        """The last line of the demo."""
        return (
            f"account: recorded {self.recorded.total}, delivered {self.delivered}, "
            f"lost {self.missing}, duplicated {self.arrived.duplicated}"
        )


def read_recorded(account_file: Path) -> Recorded:
    """Zeros before the controller has written its first account."""
    try:
        account = json.loads(account_file.read_text())
    except FileNotFoundError:
        return Recorded()
    return Recorded(account["records"], account["keys"])


def read_on_the_way(inbox: Path, gateway_db: Path) -> OnTheWay:
    return OnTheWay(
        _count(inbox, "SELECT count(*) FROM messages"),
        _count(gateway_db, "SELECT count(*) FROM outbox"),
        _count(gateway_db, "SELECT count(*) FROM dead_letter"),
    )


def formatted(value: Any) -> str:
    """A newest value as people read it."""
    return f"{value:,}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _count(database: Path, query: str) -> int:
    """0 while there is no such file or table, it is locked or damaged: this is a display, and damage is a blow."""
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=0.2)) as connection:
            return int(connection.execute(query).fetchone()[0])
    except sqlite3.DatabaseError:
        return 0
