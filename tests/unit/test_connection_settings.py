"""How the server is reached: the variables that hang together."""

import pytest

from teg.settings import ProxyAddress, Settings
from tests.support.environments import ROOT, problems, read


@pytest.mark.parametrize(("transport", "port", "tls"), [("wss", 443, True), ("ws", 80, False)])
def test_a_websocket_has_the_ports_of_the_web(transport: str, port: int, tls: bool) -> None:
    settings = Settings.from_environment({"TB_HOST": "h", "TB_TRANSPORT": transport})
    assert (settings.tb_port, settings.tb_tls) == (port, tls)
    assert read(TB_TRANSPORT=transport, TB_PORT="8084").tb_port == 8084


def test_without_one_the_port_has_to_be_set() -> None:
    assert problems(TB_PORT="", TB_TRANSPORT="tcp") == ["TB_PORT is not set"]


@pytest.mark.parametrize(("transport", "tls"), [("wss", "off"), ("ws", "on")])
def test_tls_is_said_once(transport: str, tls: str) -> None:
    assert problems(TB_TRANSPORT=transport, TB_TLS=tls) == [
        f"TB_TLS={tls} contradicts TB_TRANSPORT={transport}: wss is with TLS, ws without"
    ]


@pytest.mark.parametrize(("transport", "tls"), [("wss", "on"), ("ws", "off")])
def test_twice_the_same_is_no_contradiction(transport: str, tls: str) -> None:
    assert read(TB_TRANSPORT=transport, TB_TLS=tls).tb_tls == (transport == "wss")


def test_the_path_is_a_websockets_alone() -> None:
    assert read(TB_WEBSOCKET_PATH="/x").connection.websocket_path == ""
    assert read(TB_TRANSPORT="wss", TB_WEBSOCKET_PATH="/x").connection.websocket_path == "/x"


@pytest.mark.parametrize(
    "url",
    [
        "http://user:s3cret@",
        "http://user:s3cret@proxy:99999",
        "https://user:s3cret@proxy:3128",
        "user:s3cret@proxy:3128",
        "http://user:s3cret@[proxy:3128",
        "http://s3cret@proxy:3128",
        "http://user:s3cret@proxy:3128/path",
    ],
)
def test_a_proxys_password_is_in_no_problem(url: str) -> None:
    (problem,) = problems(TB_PROXY=url)
    assert problem.startswith("TB_PROXY")
    assert "s3cret" not in problem


def test_a_proxys_password_is_in_no_text_of_the_settings() -> None:
    settings = read(TB_PROXY="http://teg:s3cret@proxy.example.org:3128")
    assert settings.connection.proxy == ProxyAddress("proxy.example.org", 3128, "teg", "s3cret")
    assert "s3cret" not in f"{settings} {settings!r} {settings.connection.proxy}"
    assert str(settings.connection.proxy) == "proxy.example.org:3128"


@pytest.mark.parametrize("user", ["teg", "üser@site"])
def test_the_url_for_programs_can_be_read_again(user: str) -> None:
    proxy = ProxyAddress("::1", 3128, user, "p:w/@%")
    assert read(TB_PROXY=proxy.url).connection.proxy == proxy


CERTIFICATE = str(ROOT / "pyproject.toml")  # a file that is there; what is in it is looked at later


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"TB_CLIENT_CERT": CERTIFICATE}, "TB_CLIENT_CERT is set without TB_CLIENT_KEY"),
        ({"TB_CLIENT_KEY": CERTIFICATE}, "TB_CLIENT_KEY is set without TB_CLIENT_CERT"),
        ({"TB_MQTT_PASSWORD": "s3cret"}, "TB_MQTT_PASSWORD is set without TB_MQTT_USER"),
        ({"TB_MQTT_CLIENT_ID": "c", "TB_MQTT_PASSWORD": "s3cret"}, "TB_MQTT_PASSWORD is set without TB_MQTT_USER"),
        (
            {"TB_MQTT_USER": "u", "THINGSBOARD_ACCESS_TOKEN": "/run/token"},
            "THINGSBOARD_ACCESS_TOKEN and TB_MQTT_USER are both set",
        ),
        (
            {"TB_CLIENT_CERT": CERTIFICATE, "TB_CLIENT_KEY": CERTIFICATE, "TB_MQTT_CLIENT_ID": "c"},
            "TB_CLIENT_CERT and TB_MQTT_CLIENT_ID are both set",
        ),
        (
            {"TB_CLIENT_CERT": CERTIFICATE, "TB_CLIENT_KEY": CERTIFICATE, "THINGSBOARD_ACCESS_TOKEN": "/run/token"},
            "TB_CLIENT_CERT and THINGSBOARD_ACCESS_TOKEN are both set",
        ),
        ({"TB_CLIENT_CERT": CERTIFICATE, "TB_CLIENT_KEY": CERTIFICATE, "TB_TLS": "off"}, "TB_CLIENT_CERT needs TLS"),
        ({"TB_CLIENT_CERT": CERTIFICATE, "TB_CLIENT_KEY": CERTIFICATE, "TB_TRANSPORT": "ws"}, "needs TLS"),
    ],
)
def test_exactly_one_kind_of_credentials_and_no_half_of_one(variables: dict[str, str], problem: str) -> None:
    (said,) = problems(**variables)
    assert problem in said
    assert "s3cret" not in said


def test_each_kind_alone_is_taken() -> None:
    assert read(TB_MQTT_CLIENT_ID="c").connection.is_basic
    assert read(TB_MQTT_USER="u", TB_MQTT_PASSWORD="p").connection.is_basic
    found = read(TB_CLIENT_CERT=CERTIFICATE, TB_CLIENT_KEY=CERTIFICATE).connection
    assert (str(found.client_cert), found.is_basic) == (CERTIFICATE, False)


def test_a_password_is_in_no_text_of_the_settings() -> None:
    settings = read(TB_MQTT_USER="u", TB_MQTT_PASSWORD="s3cret")
    assert "s3cret" not in f"{settings} {settings!r}"
    assert settings.connection.secrets == ("s3cret",)
