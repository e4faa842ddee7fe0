"""Provisioning: what the server's answer means, and a token that is kept safely."""

import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from teg.adapters.token_file import AccessTokenFile
from teg.domain.errors import Refused, Unavailable
from teg.domain.server.provisioning import (
    AlreadyExists,
    Credentials,
    ProvisionKeys,
    encode_provision_request,
    parse_provision_answer,
)

KEYS = ProvisionKeys("pi-07", "key-1", "secret-1")
GOOD = {"status": "SUCCESS", "credentialsType": "ACCESS_TOKEN", "credentialsValue": "T1"}


def test_the_request_is_what_thingsboard_reads() -> None:
    assert orjson.loads(encode_provision_request(KEYS)) == {
        "deviceName": "pi-07",
        "provisionDeviceKey": "key-1",
        "provisionDeviceSecret": "secret-1",
    }


@pytest.mark.parametrize("token", ["T1", " T1\n", "\tT1"])
def test_success_gives_the_token_without_blanks(token: str) -> None:
    assert parse_provision_answer(orjson.dumps(GOOD | {"credentialsValue": token}), "pi-07") == "T1"


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (b"", Unavailable, "not JSON"),
        (b"<html>", Unavailable, "not JSON"),
        (b"[]", Unavailable, "not an object"),
        (b'"SUCCESS"', Unavailable, "not an object"),
        (b"{}", Refused, "no access token"),
        (orjson.dumps({"status": "FAILURE"}), AlreadyExists, "'pi-07': most likely a device of this name already"),
        (orjson.dumps({"status": "NOT_FOUND"}), Refused, "does not know this provisioning key"),
        (orjson.dumps(GOOD | {"status": "OK"}), Refused, "no access token"),
        (orjson.dumps(GOOD | {"credentialsType": "MQTT_BASIC"}), Refused, "only credentials of type ACCESS_TOKEN"),
        (orjson.dumps(GOOD | {"credentialsType": "X509_CERTIFICATE"}), Refused, "only credentials"),
        (orjson.dumps(GOOD | {"credentialsValue": ""}), Refused, "empty access token"),
        (orjson.dumps(GOOD | {"credentialsValue": None}), Refused, "no access token"),
        (orjson.dumps(GOOD | {"credentialsValue": {"a": 1}}), Refused, "no access token"),
    ],
)
def test_every_other_answer_is_said_in_plain_words(answer: bytes, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        parse_provision_answer(answer, "pi-07")


@given(st.binary() | st.dictionaries(st.sampled_from(list(GOOD)), st.text() | st.none() | st.integers(-9, 9)))
def test_no_answer_breaks_the_parser(answer: Any) -> None:
    payload = answer if isinstance(answer, bytes) else orjson.dumps(answer)
    with suppress(Unavailable, Refused):
        assert parse_provision_answer(payload, "pi-07")


# --- keeping the token


class Server:
    """Gives a new token at each request, once a device."""

    def __init__(self) -> None:
        self.requests = 0

    def ask(self, request: bytes) -> bytes:
        self.requests += 1
        if self.requests > 1:
            return orjson.dumps({"status": "FAILURE"})
        return orjson.dumps(GOOD)


def test_a_token_in_the_file_is_used_and_read_anew_each_time(tmp_path: Path) -> None:
    path, server = tmp_path / "token", Server()
    credentials = Credentials(AccessTokenFile(path), KEYS, server.ask)
    path.write_text("first\n")
    assert credentials.token() == "first"
    path.write_text("second")
    assert credentials.token() == "second"
    assert server.requests == 0


def test_a_new_device_asks_once_and_stores_the_token_for_us_only(tmp_path: Path) -> None:
    path, server = tmp_path / "sub" / "token", Server()
    credentials = Credentials(AccessTokenFile(path), KEYS, server.ask)
    assert [credentials.token() for _ in range(3)] == ["T1"] * 3
    assert server.requests == 1
    assert path.read_text() == "T1"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_token_that_cannot_be_stored_now_is_not_lost(tmp_path: Path) -> None:
    """The server gives it once: asking again would only meet 'name already exists'."""
    (tmp_path / "token.new").mkdir()  # in the way
    path, server = tmp_path / "token", Server()
    credentials = Credentials(AccessTokenFile(path), KEYS, server.ask)
    assert credentials.token() == "T1"
    assert credentials.token() == "T1"
    assert not path.exists()
    (tmp_path / "token.new").rmdir()
    assert credentials.token() == "T1"
    assert path.read_text() == "T1"
    assert server.requests == 1


def test_without_a_file_and_keys_a_person_is_asked(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="access token"):
        Credentials(AccessTokenFile(tmp_path / "token"), None, Server().ask).token()


@pytest.mark.parametrize("content", [b"", b" \n", b"a b", b"a\nb", b"\x00", b"x" * 5000, b"\xff\xfe"])
def test_a_file_that_holds_no_token_is_said_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path, server = tmp_path / "token", Server()
    path.write_bytes(content)
    with pytest.raises(Refused, match="token file"):
        Credentials(AccessTokenFile(path), KEYS, server.ask).token()
    assert path.read_bytes() == content
    assert server.requests == 0


def test_a_directory_in_its_place_is_said(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="cannot be read"):
        AccessTokenFile(tmp_path).read()


def test_a_file_readable_by_others_is_closed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "token"
    path.write_text("T1")
    path.chmod(0o644)
    assert AccessTokenFile(path).read() == "T1"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "was readable by others" in caplog.text


def test_writing_replaces_at_once_and_follows_no_link(tmp_path: Path) -> None:
    path, target = tmp_path / "token", tmp_path / "target"
    target.write_text("of somebody else")
    (tmp_path / "token.new").symlink_to(target)
    with pytest.raises(Unavailable, match="cannot be written"):
        AccessTokenFile(path).write("T1")
    assert target.read_text() == "of somebody else"
    (tmp_path / "token.new").unlink()
    path.write_text("old")
    AccessTokenFile(path).write("T1")
    assert path.read_text() == "T1"
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith("token")] == ["token"]
