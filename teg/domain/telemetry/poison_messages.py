"""Finding the one record on which the server closes the connection, by halving.

On MQTT 3.1.1 a poisoned payload, a rate limit and a broken network look alike: the connection ends. So after a close
with unacknowledged publishes everything that was in flight is suspect and goes alone, one batch at a time; a batch
that is closed on again is halved; a single record that is closed on `STRIKES` times, each time right after the server
acknowledged a harmless probe, is the culprit.
"""

from collections.abc import Sequence

from teg.domain.telemetry.ports import Stream

STRIKES = 3
#: Closes in a row that halving may need (2,000 rows, then the strikes); beyond, it is no poison and we back off.
HOPE = 16

Cargo = tuple[Stream, tuple[int, ...]]


class PoisonMessages:
    """What to be careful about; empty in good times."""

    def __init__(self) -> None:
        self._suspects: set[tuple[Stream, int]] = set()
        self._strikes: dict[tuple[Stream, int], int] = {}
        self.max_rows: int | None = None
        self._probed = False
        self._closes = 0

    @property
    def hopeful(self) -> bool:
        """True while reconnecting soon brings the search on."""
        return self.active and self._closes <= HOPE

    @property
    def active(self) -> bool:
        return bool(self._suspects)

    @property
    def wants_probe(self) -> bool:
        """True before a single suspect is sent, when the server's health has not been shown since the last one."""
        return self.active and self.max_rows == 1 and not self._probed

    def probed(self) -> None:
        self._probed = True

    def closed(self, flight: Sequence[Cargo]) -> tuple[Stream, int] | None:
        """The server closed with `flight` unacknowledged. Returns the culprit once it is certain."""
        self._closes += 1
        self._suspects |= {(lane, record_id) for lane, ids in flight for record_id in ids}
        lane, ids = flight[0]
        probed, self._probed = self._probed, False
        if len(flight) > 1:
            self.max_rows = len(ids)
            return None
        if len(ids) > 1:
            self.max_rows = max(1, len(ids) // 2)
            return None
        self.max_rows = 1
        return self._strike((lane, ids[0])) if probed else None

    def passed(self, cargo: Cargo) -> None:
        """The server acknowledged `cargo`: it is innocent."""
        lane, ids = cargo
        self._probed = False
        self._closes = 0
        for record_id in ids:
            self._suspects.discard((lane, record_id))
            self._strikes.pop((lane, record_id), None)
        self._relax()

    def clear(self) -> None:
        self._suspects.clear()
        self._relax()

    def _strike(self, suspect: tuple[Stream, int]) -> tuple[Stream, int] | None:
        self._strikes[suspect] = self._strikes.get(suspect, 0) + 1
        if self._strikes[suspect] < STRIKES:
            return None
        self._suspects.discard(suspect)
        del self._strikes[suspect]
        self._relax()
        return suspect

    def _relax(self) -> None:
        if not self._suspects:
            self.max_rows = None
            self._strikes.clear()
