"""The TLS policy: nothing weaker can be had, whatever is configured."""

import ssl
from pathlib import Path

import pytest

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
