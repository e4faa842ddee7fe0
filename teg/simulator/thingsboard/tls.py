"""A throw-away certificate authority and a server certificate, for TLS on this machine only."""

import datetime
import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

#: Names the certificate is good for, unless told otherwise.
LOCAL_NAMES = ("localhost", "127.0.0.1")
_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class ServerTls:
    """PEM files in one directory. A client trusts `ca_file`; the CA's key is thrown away."""

    ca_file: Path
    certificate_file: Path
    key_file: Path

    @classmethod
    def create(cls, directory: Path, names: Sequence[str] = LOCAL_NAMES, *, expired: bool = False) -> "ServerTls":
        """Write new files; for tests of refusal, with other `names` or a certificate of last year."""
        directory.mkdir(parents=True, exist_ok=True)
        tls = cls.in_directory(directory)
        ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        ca = _ca_certificate(ca_key)
        certificate = _server_certificate(ca, ca_key, key, names, age_days=365 if expired else 1)
        tls.ca_file.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
        tls.certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        tls.key_file.touch(mode=0o600)
        tls.key_file.write_bytes(_pem(key))
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
        return context


def _ca_certificate(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = _name("throw-away CA of the ThingsBoard stand-in")
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    return (
        _builder(name, name, key.public_key(), age_days=400)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _server_certificate(
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    key: ec.EllipticCurvePrivateKey,
    names: Sequence[str],
    age_days: int,
) -> x509.Certificate:
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    return (
        _builder(_name(names[0]), ca.subject, key.public_key(), age_days)
        .add_extension(x509.SubjectAlternativeName([_alternative(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=False)
        .add_extension(authority, critical=False)
        .sign(ca_key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, age_days: int
) -> x509.CertificateBuilder:
    """Valid for a month; a certificate older than that has expired, the CA's is good for years."""
    start = datetime.datetime.now(datetime.UTC) - age_days * _DAY
    days = 3650 if subject == issuer else 30
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + days * _DAY)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
