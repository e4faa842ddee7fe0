"""A client certificate: taken or refused in words with a remedy, renewed without a restart, its end said in time."""

import logging
import shutil
import ssl
import subprocess
import time
from pathlib import Path

import pytest

from teg.adapters import tls
from teg.domain.errors import Refused
from tests.support.client_certificates import Pair, issue


def context() -> ssl.SSLContext:
    return ssl.create_default_context()


def test_a_pair_is_taken(tmp_path: Path) -> None:
    pair = issue(tmp_path)
    shown = tls.ClientCertificate(context(), pair.certificate, pair.key)
    assert shown.presented() == pair.pem


def test_another_ones_key(tmp_path: Path) -> None:
    ours, other = issue(tmp_path / "a"), issue(tmp_path / "b")
    with pytest.raises(Refused, match=r"is not the key of TB_CLIENT_CERT=.*: take both from the same pair"):
        tls.present(context(), ours.certificate, other.key)


def test_a_key_with_a_passphrase_asks_nobody(tmp_path: Path) -> None:
    pair, locked = issue(tmp_path), tmp_path / "locked.key"
    command: list[str | Path] = ["openssl", "pkey", "-in", pair.key, "-aes256", "-passout", "pass:word", "-out", locked]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    with pytest.raises(Refused, match="protected by a passphrase, which nobody can type"):
        tls.present(context(), pair.certificate, locked)


@pytest.mark.parametrize(
    "text", ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_what_is_no_certificate(tmp_path: Path, text: str) -> None:
    pair = issue(tmp_path)
    pair.certificate.write_text(text)
    with pytest.raises(Refused, match="cannot be used"):
        tls.present(context(), pair.certificate, pair.key)
    with pytest.raises(Refused, match="holds no certificate"):
        tls.valid_days(pair.certificate, time.time())


def test_its_dates_are_read(tmp_path: Path) -> None:
    since_days, left_days = tls.valid_days(issue(tmp_path, days=30, since_days=3).certificate, time.time())
    assert (round(since_days, 1), round(left_days, 1)) == (3.0, 30.0)


@pytest.mark.parametrize(
    ("days", "since_days", "words"),
    [
        (90, 1, None),
        (22, 1, None),
        (20, 1, "expires in 20 days: renew it"),
        (-3, 10, "expired 3 days ago: renew it"),
        (90, -2, "is not valid yet: set this device's clock"),
    ],
)
def test_what_is_said_of_its_time(tmp_path: Path, days: float, since_days: float, words: str | None) -> None:
    pair = issue(tmp_path, days=days, since_days=since_days)
    found = list(tls.troubles(pair.certificate, pair.key, time.time()))
    assert [words in text for text in found if words] == ([True] if words else [])
    assert bool(found) == bool(words)


def test_a_key_that_others_can_read_is_said_once_a_day(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    pair = issue(tmp_path)
    pair.key.chmod(0o640)
    shown = tls.ClientCertificate(context(), pair.certificate, pair.key)
    shown.presented()
    shown.presented()
    assert caplog.text.count(f"others can read the key {pair.key}: chmod 600") == 1


def test_a_renewed_pair_is_used_without_a_restart(tmp_path: Path) -> None:
    """A mix of old and new, as in the middle of a renewal, is refused, and taken when both are there."""
    pair, new = issue(tmp_path / "a"), issue(tmp_path / "b")
    shown = tls.ClientCertificate(context(), pair.certificate, pair.key)
    shown.presented()
    shutil.copy(new.certificate, pair.certificate)
    with pytest.raises(Refused, match="is not the key of"):
        shown.presented()
    shutil.copy(new.key, pair.key)
    assert shown.presented() == new.pem


def test_pairs_of_the_tests_differ(tmp_path: Path) -> None:
    pairs: list[Pair] = [issue(tmp_path / name) for name in "ab"]
    assert pairs[0].pem != pairs[1].pem
