"""Who may do something on the status page: one password, sessions in memory, and a limit on guessing.

Without a password nobody may: whoever reaches the page (which is then on loopback only) looks, and that is all.
"""

import base64
import binascii
import hashlib
import hmac
import ipaddress
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from teg.domain.errors import Refused, Unavailable
from teg.domain.server import Bucket

IDLE_S, LIFE_S = 3_600.0, 12 * 3_600.0
MAX_SESSIONS, MAX_CLIENTS = 16, 256
#: Guesses: so many at once, then one in so many seconds; of one client, and of all together.
CLIENT_GUESSES, CLIENT_SPACING_S = 5, 30.0
ALL_GUESSES, ALL_SPACING_S = 30, 2.0
LONGEST_PASSWORD = 1_000


class TooOften(Unavailable):
    """Too many guesses; also the right password is not taken now."""


@dataclass(slots=True)
class Session:
    """`csrf` goes with everything that changes something; `client` is where it was opened from, and only from there."""

    csrf: str
    client: str
    opened_s: float
    used_s: float


class Sessions:
    """Callable from any thread. A session ends with the gateway."""

    def __init__(self, password: str | None, now_s: Callable[[], float] = time.monotonic) -> None:
        self._password = password
        self._now_s = now_s
        self._lock = threading.Lock()
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()
        self._clients: OrderedDict[str, Bucket] = OrderedDict()
        self._everybody = Bucket(ALL_GUESSES, 1 / ALL_SPACING_S, ALL_GUESSES, now_s())

    @property
    def password_set(self) -> bool:
        return self._password is not None

    def sign_in(self, password: str, client: str) -> tuple[str, Session]:
        """The secret of a new session, for a cookie.

        Raises:
            Refused: not the password, or none is set.
            TooOften: too many tries.
        """
        self.check(password, client)
        token, now_s = secrets.token_urlsafe(32), self._now_s()
        session = Session(secrets.token_urlsafe(32), client, now_s, now_s)
        with self._lock:
            self._sessions[_digest(token)] = session
            while len(self._sessions) > MAX_SESSIONS:
                self._sessions.popitem(last=False)
        return token, session

    def check(self, password: str, client: str) -> None:
        """Raises as `sign_in`; takes the same time however much of a guess is right."""
        with self._lock:
            buckets = self._admitted(_network(client))
        if self._password is None:
            raise Refused("no password is set on this gateway (TEG_CONSOLE_PASSWORD)")
        if not hmac.compare_digest(_digest(password[:LONGEST_PASSWORD]), _digest(self._password)):
            raise Refused("this is not the password")
        with self._lock:
            for bucket in buckets:  # who knows it may come as often as they like: a scraper does
                bucket.take(-1)

    def check_basic(self, header: str, client: str) -> None:
        """`Authorization: Basic …`, with any user name; raises as `sign_in`."""
        kind, _, encoded = header.partition(" ")
        try:
            text = base64.b64decode(encoded.strip(), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise Refused("the authorization cannot be read") from error
        if kind.lower() != "basic":
            raise Refused("only basic authorization is understood")
        self.check(text.partition(":")[2], client)

    def find(self, token: str, client: str) -> Session | None:
        now_s = self._now_s()
        with self._lock:
            key = _digest(token)
            session = self._sessions.get(key)
            if session is None or not hmac.compare_digest(session.client, client):
                return None
            if now_s - session.used_s > IDLE_S or now_s - session.opened_s > LIFE_S:
                del self._sessions[key]
                return None
            session.used_s = now_s
            return session

    def sign_out(self, token: str) -> None:
        with self._lock:
            self._sessions.pop(_digest(token), None)

    def _admitted(self, client: str) -> tuple[Bucket, Bucket]:
        """Counted before it is looked at, so that guesses side by side are no way around the limit."""
        now_s = self._now_s()
        fresh = Bucket(CLIENT_GUESSES, 1 / CLIENT_SPACING_S, CLIENT_GUESSES, now_s)
        own = self._clients.setdefault(client, fresh)
        self._clients.move_to_end(client)
        while len(self._clients) > MAX_CLIENTS:
            self._clients.popitem(last=False)
        if (wait_s := max(own.wait_s(now_s), self._everybody.wait_s(now_s))) > 0:
            raise TooOften(f"too many tries; the next one in {wait_s:.0f} s")
        for bucket in (own, self._everybody):
            bucket.take()
        return own, self._everybody


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()


def _network(client: str) -> str:
    """One who has an IPv6 network has 2^64 addresses."""
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return client
    return str(ipaddress.ip_network((address, 64), strict=False)) if address.version == 6 else client
