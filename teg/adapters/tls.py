"""The one TLS policy of the gateway: TLS 1.2 or newer, certificate and host name verified, no switch against it.

The name has to be in the certificate's subjectAltName; a common name, which is free text, does not count (RFC 9525).
"""

import ssl
from pathlib import Path

from teg.domain.errors import Refused


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
