"""Who may connect: matching a CONNECT with a device, and the refusal codes of ThingsBoard."""

import base64
import hashlib
import secrets
import ssl
import string
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from teg.domain.server.wire import PROVISION_USER
from teg.simulator.thingsboard.mqtt_codec import V5, Connect


@dataclass(frozen=True, slots=True)
class Credentials:
    """An access token, or any of the three basic fields; None = not configured."""

    token: str | None = None
    client_id: str | None = None
    user_name: str | None = None
    password: str | None = None
    certificate: str | None = None  #: X.509, PEM

    @property
    def fingerprint(self) -> str | None:
        return None if self.certificate is None else fingerprint_of(ssl.PEM_cert_to_DER_cert(self.certificate))

    def accept(self, connect: Connect, fingerprint: str = "") -> bool:
        """Token: the user name alone decides. Basic: every configured field has to be equal.

        Whoever shows a certificate is looked for by that alone.
        """
        if fingerprint or self.fingerprint is not None:
            return fingerprint == self.fingerprint
        if self.token is not None:
            return connect.user_name == self.token
        if self.user_name is None and connect.user_name is not None:
            return self.client_id is not None and self._equal(connect)
        return (self.client_id, self.user_name) != (None, None) and self._equal(connect)

    def _equal(self, connect: Connect) -> bool:
        password = None if connect.password is None else connect.password.decode("utf-8", "replace")
        wanted = (self.client_id, self.user_name, self.password)
        given = (connect.client_id, connect.user_name, password)
        return all(want in (None, have) for want, have in zip(wanted, given, strict=True))


class LoginRefused(Exception):  # noqa: N818 - what happened to the login
    """`code` is that of the CONNACK, in the client's protocol version."""

    def __init__(self, code: int) -> None:
        super().__init__(f"CONNACK {code:#04x}")
        self.code = code


class HasCredentials(Protocol):
    @property
    def credentials(self) -> Credentials | None: ...


Holder = TypeVar("Holder", bound=HasCredentials)


def fingerprint_of(certificate: bytes) -> str:
    """SHA3-256 of the base64 text of the DER encoding, as ThingsBoard's EncryptionUtil makes it; empty of nothing."""
    return hashlib.sha3_256(base64.b64encode(certificate)).hexdigest() if certificate else ""


def find_device(connect: Connect, devices: Iterable[Holder], fingerprint: str = "") -> Holder | None:
    for device in devices:
        if device.credentials is not None and device.credentials.accept(connect, fingerprint):
            return device
    return None


def wants_provisioning(connect: Connect) -> bool:
    return PROVISION_USER in (connect.user_name, connect.client_id)


#: MQTT 3.1.1 return code -> MQTT 5 reason code, for those that do not depend on the login.
ACCEPTED = 0
UNAVAILABLE = 3
_V5_CODES = {0: 0x00, 1: 0x84, 2: 0x85, 3: 0x88, 4: 0x86, 5: 0x87}
RATE_LIMITED_V5 = 0x9F


def refusal(connect: Connect, fingerprint: str = "") -> int:
    """CONNACK code for a login that matches no device: 5 with user name or password, never 4."""
    if fingerprint:
        return 0x87 if connect.version == V5 else 5
    has_login = connect.user_name is not None or connect.password is not None
    if has_login:
        return 0x86 if connect.version == V5 else 5
    if connect.client_id.strip():
        return 0x85 if connect.version == V5 else 2
    return 0x87 if connect.version == V5 else 5


def in_version(version: int, code: int) -> int:
    """A 3.1.1 code as the given protocol version writes it."""
    return _V5_CODES.get(code, 0x80) if version == V5 else code


def random_text() -> str:
    """A token or name as the server makes them up."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(20))
