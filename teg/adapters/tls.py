"""The one TLS policy of the gateway: TLS 1.2 or newer, certificate and host name verified, no switch against it.

The name has to be in the certificate's subjectAltName; a common name, which is free text, does not count (RFC 9525).
"""

import ssl
from pathlib import Path
from typing import Protocol

from teg.domain.errors import Refused


class TlsSettings(Protocol):
    """Of `Settings`, what this is about."""

    @property
    def tb_tls(self) -> bool: ...
    @property
    def ca_cert(self) -> Path | None: ...


def context_of(settings: TlsSettings) -> ssl.SSLContext | None:
    """None where the settings say plain MQTT. Raises Refused, as below."""
    return client_context(settings.ca_cert) if settings.tb_tls else None


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
