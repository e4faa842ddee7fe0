"""Credentials of the settings: told to the server once where provisioning is set, and tried whatever it says."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from teg.domain.errors import Refused, Unavailable
from teg.domain.server.login import Kind, Login
from teg.domain.server.own_credentials import PROVISIONED_KEY, OwnCredentials
from teg.domain.server.provisioning import ProvisionKeys
from teg.domain.server.reconnect import refusal_text
from tests.support.states import MemoryState

KEYS = ProvisionKeys("pi-07", "key-1", "secret-1")
BASIC = Login(Kind.BASIC, "user-1", "s3cret", "client-1")
CERTIFICATE = Login(Kind.CERTIFICATE)
SUCCESS = {"MQTT_BASIC": {"userName": "user-1"}, "X509_CERTIFICATE": "PEM"}


class Server:
    """Answers provisioning requests, and notes them."""

    def __init__(self, answer: dict[str, Any] | None = None) -> None:
        self.answer, self.requests = answer, list[dict[str, Any]]()

    def __call__(self, request: bytes) -> bytes:
        body = orjson.loads(request)
        self.requests.append(body)
        kind = body["credentialsType"]
        good = {"status": "SUCCESS", "credentialsType": kind, "credentialsValue": SUCCESS[kind]}
        return orjson.dumps(self.answer or good)


def credentials(
    login: Login,
    server: Server,
    state: MemoryState,
    keys: ProvisionKeys | None = KEYS,
    pem: Callable[[], str] = lambda: "",
    place: str = "tb:8883",
) -> OwnCredentials:
    return OwnCredentials(login, pem, keys, server, state, place)


def test_without_keys_the_server_is_asked_nothing() -> None:
    server = Server()
    assert credentials(BASIC, server, MemoryState(), keys=None).login() is BASIC
    assert server.requests == []


def test_basic_credentials_are_told_once_and_the_password_is_not_kept() -> None:
    server, state = Server(), MemoryState()
    for _ in range(3):
        assert credentials(BASIC, server, state).login() is BASIC
    assert server.requests == [
        {
            "deviceName": "pi-07",
            "provisionDeviceKey": "key-1",
            "provisionDeviceSecret": "secret-1",
            "credentialsType": "MQTT_BASIC",
            "clientId": "client-1",
            "username": "user-1",
            "password": "s3cret",
        }
    ]
    assert b"s3cret" not in b"".join(state.stored.values())
    assert list(state.stored) == [PROVISIONED_KEY]


def test_only_what_is_set_is_told() -> None:
    server = Server()
    credentials(Login(Kind.BASIC, client_id="client-1"), server, MemoryState()).login()
    assert {"username", "password"}.isdisjoint(server.requests[0])


def test_a_certificate_is_told_and_a_renewed_one_again() -> None:
    server, state, pems = Server(), MemoryState(), ["PEM 1", "PEM 1", "PEM 2"]
    for pem in pems:
        credentials(CERTIFICATE, server, state, pem=lambda pem=pem: pem).login()  # type: ignore[misc]
    assert [(body["credentialsType"], body["hash"]) for body in server.requests] == [
        ("X509_CERTIFICATE", "PEM 1"),
        ("X509_CERTIFICATE", "PEM 2"),
    ]


def test_another_server_is_told_again() -> None:
    server, state = Server(), MemoryState()
    credentials(BASIC, server, state).login()
    credentials(BASIC, server, state, place="other:8883").login()
    assert len(server.requests) == 2


def test_a_device_that_exists_is_tried_with_ours() -> None:
    server, state = Server({"status": "FAILURE"}), MemoryState()
    assert credentials(BASIC, server, state).login() is BASIC
    assert state.stored == {}, "it is asked again: perhaps it was another failure"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"status": "NOT_FOUND"}, Refused),
        ({"status": "SUCCESS", "credentialsType": "ACCESS_TOKEN", "credentialsValue": "T1"}, Refused),
        ({"x": 1}, Refused),
    ],
)
def test_other_answers_are_no_login(answer: dict[str, Any], error: type[Exception]) -> None:
    state = MemoryState()
    with pytest.raises(error):
        credentials(BASIC, Server(answer), state).login()
    assert state.stored == {}


def test_no_answer_is_tried_again_later() -> None:
    def silent(_: bytes) -> bytes:
        raise Unavailable("no answer")

    with pytest.raises(Unavailable):
        OwnCredentials(BASIC, None, KEYS, silent, MemoryState(), "tb:8883").login()


@pytest.mark.parametrize("code", [2, 4, 5])
def test_a_refusal_names_what_was_refused(code: int) -> None:
    assert "TB_MQTT_USER" in refusal_text(code, Kind.BASIC)
    assert "client certificate" in refusal_text(code, Kind.CERTIFICATE)
    assert "certificate" not in refusal_text(code)
    assert f"CONNACK {code}" in refusal_text(code, Kind.BASIC)


def test_a_login_shows_nothing_of_itself() -> None:
    assert "s3cret" not in repr(BASIC)
    assert "T-oken" not in repr(Login.of("T-oken"))
