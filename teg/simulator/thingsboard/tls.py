"""A throw-away certificate authority and a server certificate, for TLS on this machine only."""

import datetime
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import trustme

#: Names the certificate is good for, unless told otherwise.
LOCAL_NAMES = ("localhost", "127.0.0.1")
#: X509_V_FLAG_PARTIAL_CHAIN: a client's own certificate among the trusted ones is enough.
VERIFY_PARTIAL_CHAIN = 0x80000
_MONTH = datetime.timedelta(days=30)


@dataclass(frozen=True, slots=True)
class ServerTls:
    """PEM files in one directory. A client trusts `ca_file`; the CA's key is thrown away."""

    ca_file: Path
    certificate_file: Path
    key_file: Path

    @classmethod
    def create(cls, directory: Path, names: Sequence[str] = LOCAL_NAMES, *, expired: bool = False) -> "ServerTls":
        """Write new files; for tests of refusal, with other `names` or a certificate that ended a month ago."""
        directory.mkdir(parents=True, exist_ok=True)
        tls = cls.in_directory(directory)
        ca = trustme.CA(organization_name="throw-away CA of the ThingsBoard stand-in")
        now = datetime.datetime.now(datetime.UTC)
        certificate = ca.issue_cert(*names, not_after=now - _MONTH if expired else None)
        ca.cert_pem.write_to_path(tls.ca_file)
        certificate.cert_chain_pems[0].write_to_path(tls.certificate_file)
        tls.key_file.touch(mode=0o600)
        certificate.private_key_pem.write_to_path(tls.key_file)
        return tls

    @classmethod
    def in_directory(cls, directory: Path) -> "ServerTls":
        """The files of an earlier `create`."""
        return cls(directory / "ca.pem", directory / "server.pem", directory / "server.key")

    def exists(self) -> bool:
        return all(path.exists() for path in (self.ca_file, self.certificate_file, self.key_file))

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.certificate_file, self.key_file)
        # A client certificate is wanted, not needed. ThingsBoard takes any and looks for it among its devices; OpenSSL
        # has to be told those that count, one by one.
        context.verify_mode = ssl.CERT_OPTIONAL
        context.verify_flags |= VERIFY_PARTIAL_CHAIN
        return context
