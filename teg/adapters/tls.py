"""The one TLS policy of the gateway: TLS 1.2 or newer, certificate and host name verified, no switch against it.

The name has to be in the certificate's subjectAltName; a common name, which is free text, does not count (RFC 9525).
"""

import logging
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from teg.domain.errors import Refused
from teg.domain.server.login import Kind, Login
from teg.settings import ConnectionSettings

logger = logging.getLogger("gateway.tls")


class TlsSettings(Protocol):
    """Of `Settings`, what this is about."""

    @property
    def tb_tls(self) -> bool: ...
    @property
    def ca_cert(self) -> Path | None: ...
    @property
    def connection(self) -> ConnectionSettings: ...


def context_of(settings: TlsSettings) -> ssl.SSLContext | None:
    """None where the settings say plain MQTT. Raises Refused, as below."""
    if not settings.tb_tls:
        return None
    context = client_context(settings.ca_cert)
    if settings.connection.client_cert and settings.connection.client_key:
        present(context, settings.connection.client_cert, settings.connection.client_key)
    return context


def client_context(ca_cert: Path | None) -> ssl.SSLContext:
    """A verifying client context that trusts the system's CAs, or only `ca_cert` when given.

    Raises:
        Refused: the CA file holds no certificate.
    """
    try:
        context = ssl.create_default_context(cafile=str(ca_cert) if ca_cert else None)
    except (ssl.SSLError, OSError) as error:
        raise Refused(f"THINGSBOARD_CA_CERT={ca_cert} cannot be used: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    return context


def present(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """This client certificate from the next connection on; called again it takes up files that were renewed.

    Raises:
        Refused: the files cannot be read, are no certificate and key, or do not belong together.
    """
    asked: list[bool] = []

    def passphrase() -> str:
        """Nobody is there to type one; without this OpenSSL would wait for it at the terminal."""
        asked.append(True)
        return ""

    try:
        context.load_cert_chain(certificate, key, passphrase)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise Refused(_unusable(str(error), certificate, key, bool(asked))) from error


def _unusable(error: str, certificate: Path, key: Path, encrypted: bool) -> str:
    if encrypted:
        return f"TB_CLIENT_KEY={key} is protected by a passphrase, which nobody can type: openssl pkey -in {key} -out …"
    if "KEY_VALUES_MISMATCH" in error:
        return f"TB_CLIENT_KEY={key} is not the key of TB_CLIENT_CERT={certificate}: take both from the same pair"
    return f"TB_CLIENT_CERT={certificate} with TB_CLIENT_KEY={key} cannot be used: {error}"


def valid_days(certificate: Path, now_s: float) -> tuple[float, float]:
    """(days since it is valid, days until it expires) of the first certificate in the file, negative where not so.

    Python reads certificates for its own tests only; a library for two dates would be ten megabytes.

    Raises:
        Refused: there is no certificate in it.
    """
    try:
        found = ssl._ssl._test_decode_cert(str(certificate))  # type: ignore[attr-defined]
    except (ssl.SSLError, OSError) as error:
        raise Refused(f"TB_CLIENT_CERT={certificate} holds no certificate: {error}") from error
    begins_s, ends_s = (ssl.cert_time_to_seconds(found[name]) for name in ("notBefore", "notAfter"))
    return (now_s - begins_s) / 86_400, (ends_s - now_s) / 86_400


SAY_AGAIN_S = 86_400
#: So long before a client certificate expires it is said.
SOON_DAYS = 21
RENEW = "renew it, also in the device's credentials on the server"


def troubles(certificate: Path, key: Path, now_s: float) -> Iterator[str]:
    """What is or will be wrong with a pair that can be used, in words with the remedy.

    Raises:
        Refused: there is no certificate.
    """
    since_days, left_days = valid_days(certificate, now_s)
    if since_days < 0:
        yield f"{certificate} is not valid yet: set this device's clock (timedatectl)"
    elif left_days < 0:
        yield f"{certificate} expired {-left_days:.0f} days ago: {RENEW}"
    elif left_days < SOON_DAYS:
        yield f"{certificate} expires in {left_days:.0f} days: {RENEW}"
    if key.stat().st_mode & 0o077:
        yield f"others can read the key {key}: chmod 600 {key}"


class ClientCertificate:
    """Read anew for every connection: a renewed one needs no restart. What is wrong with it is said once a day."""

    def __init__(self, context: ssl.SSLContext, certificate: Path, key: Path) -> None:
        self._context = context
        self._files = certificate, key
        self._said: dict[str, float] = {}

    def presented(self) -> str:
        """Its text (PEM); it is used from the next connection on. Raises Refused: it cannot be."""
        present(self._context, *self._files)
        now_s = time.time()
        for problem in troubles(*self._files, now_s):
            if not 0 <= now_s - self._said.get(problem, -SAY_AGAIN_S) < SAY_AGAIN_S:
                self._said[problem] = now_s
                logger.warning("client certificate: %s", problem)
        return self._files[0].read_text(encoding="ascii", errors="replace")


def login_of(link: ConnectionSettings) -> Login:
    """Of a device that has no access token."""
    if link.client_cert:
        return Login(Kind.CERTIFICATE)
    return Login(Kind.BASIC, link.user, link.password, link.client_id)
