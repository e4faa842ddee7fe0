"""What to do, and what to say, when a connection to the server ended or was refused.

On MQTT 3.1.1 a server gives no reason; what we know is how far we came, who ended it, and how long it lasted.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from teg.domain.backoff import Backoff
from teg.domain.server.login import UNKNOWN, WHO, Kind
from teg.domain.server.second_user import SecondUser, Suspicion

#: From one try to the next, at last: below half a minute, whatever the try itself takes.
RECONNECT = Backoff(first_s=1.0, cap_s=29.0)
#: Tries that have been spread stay so if the longest waits hardly differ. With waits of half the cap to the cap a fleet
#: whose server returns has a third more tries in the first seconds.
LONGEST_WAIT_SPREAD = 0.96
#: When a server ends a connection it ends a thousand: the first tries are spread over this many first waits.
FLEET_SPREAD = 5.0
#: A session that lasted this long proves that the link is good: the next wait starts small again.
STABLE_S = 30.0
#: Wrong credentials are mended by a person, not by haste.
CREDENTIALS_WAIT_S = 5.0

#: CONNACK codes of MQTT 3.1.1 as ThingsBoard uses them.
REFUSALS = {
    1: "the server does not speak MQTT 3.1.1",
    2: "the server knows no such client (CONNACK 2)",
    3: "the server is not available now or limits our connects (CONNACK 3)",
    4: "the server refused the credentials (CONNACK 4)",
    5: "the server does not know this access token (CONNACK 5); check the token file and the device's credentials",
}

#: paho names refusals by MQTT 5 reason codes; these are the CONNACK numbers that stand in ThingsBoard's documentation.
CONNACK_NUMBERS = {0x84: 1, 0x85: 2, 0x88: 3, 0x86: 4, 0x87: 5}
#: Where ThingsBoard's answer to MQTT 5 differs: an unknown token, an exhausted limit.
MQTT5_NUMBERS = {0x86: 5, 0x9F: 3}
UNKNOWN_VERSION = 1


def refusal_text(code: int, kind: Kind = Kind.TOKEN) -> str:
    """What a CONNACK that is no welcome means, and what to do."""
    if kind in UNKNOWN and code in WHO:
        return UNKNOWN[kind].format(code=code)
    return REFUSALS.get(code, f"the server refused us (CONNACK {code})")


@dataclass(frozen=True, slots=True)
class Ended:
    """How one attempt to be connected went. `refusal` is a CONNACK code, `lasted_s` counts from the SUBACK, `took_s` is
    how long a try in vain took."""

    established: bool
    by_peer: bool
    reason: str
    lasted_s: float = 0.0
    unacknowledged: int = 0
    refusal: int | None = None
    took_s: float = 0.0
    kind: Kind = Kind.TOKEN  #: of the credentials
    taken_over: bool = False  #: the server says that another session took this one's place (MQTT 5)


@dataclass(frozen=True, slots=True)
class Advice:
    """Wait this long (`soonest_s` if somebody cannot wait), and log this."""

    wait_s: float
    soonest_s: float
    level: int
    reason: str

    @property
    def text(self) -> str:
        return f"{self.reason}; next try in {self.wait_s:.1f} s at the latest"


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkHistory:
    """How it stands with the connection, for people. `since_s` and `next_try_s` are readings of the policy's clock.

    `reason` is why the last connection ended or was refused, empty while none ever did.
    """

    connected: bool = False
    since_s: float | None = None
    reason: str = ""
    next_try_s: float | None = None
    shared_token: bool = False


class ConnectionPolicy:
    """Remembers the recent attempts; reconnects for ever, never in a tight loop. Callable from any thread.

    `now_s` is monotonic.
    """

    def __init__(self, backoff: Backoff = RECONNECT, now_s: Callable[[], float] = time.monotonic) -> None:
        self._backoff = backoff
        self._now_s = now_s
        self._attempt = 0
        self._lock = threading.Lock()
        self.second_user = SecondUser()
        self.history = LinkHistory(since_s=now_s())

    def established(self) -> None:
        """A connection is ours to use from now on."""
        self.history = replace(self.history, connected=True, since_s=self._now_s(), next_try_s=None)

    def after(self, ended: Ended) -> Advice:
        advice = self._advice(ended)
        now_s = self._now_s()
        self.history = LinkHistory(
            since_s=now_s if ended.established else self.history.since_s,
            reason=advice.reason,
            next_try_s=now_s + advice.wait_s,
            shared_token=self.second_user.suspicion is not None,
        )
        return advice

    def _advice(self, ended: Ended) -> Advice:
        suspicious = ended.by_peer and not ended.unacknowledged
        self.second_user.ended(ended.established, suspicious, ended.lasted_s, ended.taken_over)
        soonest_s, wait_s = self._waits_s(ended)
        return Advice(wait_s, min(soonest_s, wait_s), *self._say(ended))

    def _waits_s(self, ended: Ended) -> tuple[float, float]:
        with self._lock:
            if ended.established and ended.lasted_s >= STABLE_S:
                self._attempt = 0
            soonest_s, wait_s = self._backoff.wait_s(0), self._wait_s(self._attempt)
            if ended.established and ended.by_peer and not self._attempt:
                wait_s *= random.uniform(1.0, FLEET_SPREAD)  # noqa: S311 - spread, not secrecy
            self._attempt += 1
        if not ended.established:
            wait_s = max(soonest_s, wait_s - ended.took_s)
        return soonest_s, max(wait_s, CREDENTIALS_WAIT_S) if ended.refusal in (2, 4, 5) else wait_s

    def _wait_s(self, attempt: int) -> float:
        """The first of the longest waits is drawn from the whole of it: that spreads a fleet over the others."""
        longest_s = self._backoff.cap_s
        if self._backoff.nominal_s(attempt) < longest_s:
            return self._backoff.wait_s(attempt)
        if attempt and self._backoff.nominal_s(attempt - 1) < longest_s:
            return random.uniform(self._backoff.first_s, longest_s)  # noqa: S311 - spread, not secrecy
        return longest_s * random.uniform(LONGEST_WAIT_SPREAD, 1.0)  # noqa: S311

    def hurried(self) -> None:
        """The last wait was cut short on purpose: it does not make the next one longer."""
        with self._lock:
            self._attempt = max(0, self._attempt - 1)

    def fresh_start(self) -> None:
        """The server took something, or the network came back: what was learned by failing no longer holds."""
        with self._lock:
            self._attempt = 0

    def _say(self, ended: Ended) -> tuple[int, str]:
        if ended.established and (suspicion := self.second_user.suspicion) is not None:
            level = logging.WARNING if suspicion is Suspicion.MAYBE else logging.ERROR
            return level, f"the connection ended after {ended.lasted_s:.0f} s: {self.second_user.text()}"
        if ended.refusal is not None:
            return logging.ERROR, refusal_text(ended.refusal, ended.kind)
        if not ended.established:
            return logging.WARNING, f"no connection to the server: {ended.reason}"
        return logging.WARNING, f"the connection ended after {ended.lasted_s:.0f} s: {ended.reason}"
