"""What to do, and what to say, when a connection to the server ended or was refused.

On MQTT 3.1.1 a server gives no reason; what we know is how far we came, who ended it, and how long it lasted.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from teg.domain.backoff import Backoff

RECONNECT = Backoff(first_s=1.0, cap_s=120.0)
#: A session that lasted this long proves that the link is good: the next wait starts small again.
STABLE_S = 30.0
#: Wrong credentials are mended by a person, not by reconnect_now.
CREDENTIALS_WAIT_S = 5.0
#: Closed by the server this often in a row, soon after each connect and for no visible reason: somebody else.
TAKEOVER_AFTER = 3
TAKEOVER_WITHIN_S = 150.0

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


@dataclass(frozen=True, slots=True)
class Ended:
    """How one attempt to be connected went. `refusal` is a CONNACK code, `lasted_s` counts from the SUBACK."""

    established: bool
    by_peer: bool
    reason: str
    lasted_s: float = 0.0
    unacknowledged: int = 0
    refusal: int | None = None


@dataclass(frozen=True, slots=True)
class Advice:
    """Wait this long (`soonest_s` if somebody is in a reconnect_now), and log this."""

    wait_s: float
    soonest_s: float
    level: int
    reason: str

    @property
    def text(self) -> str:
        return f"{self.reason}; next try in {self.wait_s:.1f} s"


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
    """Remembers the recent attempts; reconnects for ever, never in a tight loop. `now_s` is monotonic."""

    def __init__(self, backoff: Backoff = RECONNECT, now_s: Callable[[], float] = time.monotonic) -> None:
        self._backoff = backoff
        self._now_s = now_s
        self._attempt = 0
        self._kicks = 0
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
            shared_token=self._kicks >= TAKEOVER_AFTER,
        )
        return advice

    def _advice(self, ended: Ended) -> Advice:
        if ended.established and ended.lasted_s >= STABLE_S:
            self._attempt = 0
        soonest_s, wait_s = self._backoff.wait_s(0), self._backoff.wait_s(self._attempt)
        self._attempt += 1
        if ended.refusal in (2, 4, 5):
            wait_s = max(wait_s, CREDENTIALS_WAIT_S)
        return Advice(wait_s, min(soonest_s, wait_s), *self._say(ended))

    def hurried(self) -> None:
        """The last wait was cut short on purpose: it does not make the next one longer."""
        self._attempt = max(0, self._attempt - 1)

    def _say(self, ended: Ended) -> tuple[int, str]:
        if self._kicked(ended):
            return logging.ERROR, (
                f"the server closed our connection {self._kicks} times in a row soon after it was made: most likely "
                "another program or a second device (a cloned SD card?) uses the same access token"
            )
        if ended.refusal is not None:
            return logging.ERROR, REFUSALS.get(ended.refusal, f"the server refused us (CONNACK {ended.refusal})")
        if not ended.established:
            return logging.WARNING, f"no connection to the server: {ended.reason}"
        return logging.WARNING, f"the connection ended after {ended.lasted_s:.0f} s: {ended.reason}"

    def _kicked(self, ended: Ended) -> bool:
        suspicious = (
            ended.established and ended.by_peer and not ended.unacknowledged and ended.lasted_s < TAKEOVER_WITHIN_S
        )
        if ended.established:
            self._kicks = self._kicks + 1 if suspicious else 0
        return suspicious and self._kicks >= TAKEOVER_AFTER
