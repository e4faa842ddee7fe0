"""Finding the one record on which the server closes the connection, and telling it from a server that refuses all.

On MQTT 3.1.1 a poisoned payload, a rate limit and a broken network look alike: the connection ends. So after a close
with unacknowledged publishes each of them is a suspect *group* and goes alone. A group that is closed on alone is
halved. A single record that is closed on `STRIKES` times, each time right after the server acknowledged a harmless
publish, is the culprit.

Harmless is a record that the server has taken before (the *control*); a server that closes on that one refuses
everything, and no record is to blame. Without a control (nothing was acknowledged since the start) the harmless
publish is an empty one, and the verdict is provisional: the next acknowledged record confirms it, a second culprit
before any acknowledged record says that it is the server.
"""

from collections import deque
from collections.abc import Sequence

from teg.domain.server import PROBE
from teg.domain.telemetry.backlog import Key

STRIKES = 3
#: Closes in a row that halving may need (2,000 rows, then the strikes); beyond, it is no poison and we back off.
HOPE = 16
#: A control larger than this would be a burden on a slow link.
CONTROL_BYTES = 2_000

Group = tuple[Key, ...]


class PoisonMessages:
    """What to be careful about; empty in good times."""

    def __init__(self) -> None:
        self._groups: deque[Group] = deque()
        self._strikes: dict[Key, int] = {}
        self._control: bytes | None = None
        self._probed = False
        self._closes = 0
        #: Culprits without proof; passed over until the next acknowledged record.
        self.held: set[Key] = set()
        #: The server refuses whatever it is sent.
        self.refusing = False

    @property
    def active(self) -> bool:
        return bool(self._groups)

    @property
    def hopeful(self) -> bool:
        """True while reconnecting soon brings the search on."""
        return self.active and not self.refusing and self._closes <= HOPE

    @property
    def group(self) -> Group:
        """What to send next, alone."""
        return self._groups[0]

    @property
    def wants_probe(self) -> bool:
        """True before a single suspect is sent, when the server's health has not been shown since the last one."""
        return self.active and len(self.group) == 1 and not self._probed

    @property
    def probe(self) -> bytes:
        """Telemetry that a healthy server acknowledges and that changes nothing there."""
        return self._control or PROBE

    def probed(self, acknowledged: bool) -> None:
        if acknowledged:
            self._probed = True
            self.refusing = self.refusing and self._control is None
        elif self._control is not None:
            self.refusing = True

    def present(self, keys: Group) -> None:
        """These of the group are still in the outbox."""
        self._groups.popleft()
        if keys:
            self._groups.appendleft(keys)

    def closed(self, flight: Sequence[Group]) -> Key | None:
        """The server closed with `flight` unacknowledged. Returns the culprit once it is certain."""
        self._closes += 1
        probed, self._probed = self._probed, False
        alone = len(flight) == 1 and self.active and flight[0] == self.group
        if not alone:
            self._suspect(flight)
            return None
        if len(flight[0]) > 1:
            self._halve()
            return None
        if self.refusing:
            self._groups.rotate(-1)  # another one may show sooner that the server is well again
            return None
        return self._strike(flight[0][0]) if probed else None

    def passed(self, group: Group, sample: bytes) -> list[Key]:
        """The server acknowledged `group`: it is innocent, and who is held is not. `sample` is one record of it."""
        if len(sample) <= CONTROL_BYTES:
            self._control = sample
        self._probed = False
        self._closes = 0
        if self.active and group == self.group:
            self._groups.popleft()
        for key in group:
            self._strikes.pop(key, None)
        self.refusing = False
        confirmed, self.held = sorted(self.held), set()
        return confirmed

    def _suspect(self, flight: Sequence[Group]) -> None:
        known = {key for group in self._groups for key in group}
        self._groups.extend(group for group in flight if not known.intersection(group))

    def _halve(self) -> None:
        group = self._groups.popleft()
        middle = len(group) // 2
        self._groups.extendleft((group[middle:], group[:middle]))

    def _strike(self, suspect: Key) -> Key | None:
        self._strikes[suspect] = self._strikes.get(suspect, 0) + 1
        if self._strikes[suspect] < STRIKES:
            return None
        self._groups.popleft()
        del self._strikes[suspect]
        if self._control is not None:
            return suspect
        self.held.add(suspect)
        if len(self.held) > 1:
            self._blame_the_server()
        return None

    def _blame_the_server(self) -> None:
        self.refusing = True
        self._groups.extend((key,) for key in sorted(self.held))
        self.held.clear()
        self._strikes.clear()
