"""The TLS policy: nothing weaker can be had, whatever is configured."""

import datetime
import ssl
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from teg.adapters.tls import client_context
from teg.domain.errors import Refused
from teg.simulator.thingsboard.tls import ServerTls


def test_certificate_and_host_name_are_verified_from_tls_1_2_on(tmp_path: Path) -> None:
    for ca in (None, ServerTls.create(tmp_path).ca_file):
        context = client_context(ca)
        assert context.verify_mode == ssl.CERT_REQUIRED
        assert context.check_hostname
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_a_ca_of_ours_is_the_only_one_trusted(tmp_path: Path) -> None:
    assert len(client_context(ServerTls.create(tmp_path).ca_file).get_ca_certs()) == 1


@pytest.mark.parametrize(
    "content", ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_file_without_a_certificate_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "ca.pem"
    path.write_text(content)
    with pytest.raises(Refused, match=r"THINGSBOARD_CA_CERT=.*ca\.pem cannot be used"):
        client_context(path)


def test_a_file_that_went_away_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="THINGSBOARD_CA_CERT"):
        client_context(tmp_path / "missing.pem")


# --- names ------------------------------------------------------------------------------------------------------


def certificate(directory: Path, common_name: str, names: list[str]) -> tuple[Path, Path]:
    """Self-signed, so that it is its own authority; (certificate, key)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    )
    if names:
        alternatives = x509.SubjectAlternativeName([x509.DNSName(other) for other in names])
        builder = builder.add_extension(alternatives, critical=False)
    paths = directory / "server.pem", directory / "server.key"
    paths[0].write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, host: str) -> None:
    """Both ends in memory; raises what the client raises."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(down, up, server_hostname=host), server.wrap_bio(up, down, server_side=True)]
    for _ in range(10):
        for end in list(ends):
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
                ends.remove(end)
    assert not ends


@pytest.mark.parametrize(
    ("common_name", "names", "accepted"),
    [
        ("other", ["tb.example"], True),
        ("tb.example", ["tb.example"], True),
        ("tb.example", [], False),
        ("tb.example", ["other.example"], False),
        ("tb.example", ["*.example.org"], False),
    ],
)
def test_the_name_has_to_be_in_the_certificates_alternative_names(
    tmp_path: Path, common_name: str, names: list[str], accepted: bool
) -> None:
    """OpenSSL alone would take the common name where there are no others."""
    certificate_file, key_file = certificate(tmp_path, common_name, names)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate_file, key_file)
    if accepted:
        shake_hands(client_context(certificate_file), server, "tb.example")
        return
    with pytest.raises(ssl.SSLCertVerificationError, match=r"(?i)mismatch"):
        shake_hands(client_context(certificate_file), server, "tb.example")


def test_tls_1_1_is_refused(tmp_path: Path) -> None:
    client = client_context(None)
    with pytest.warns(DeprecationWarning):
        server = ssl.SSLContext(ssl.PROTOCOL_TLSv1_1)
    with pytest.raises(ssl.SSLError):
        shake_hands(client, server, "tb.example")
