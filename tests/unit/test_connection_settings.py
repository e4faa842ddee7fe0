"""How the server is reached: the variables that hang together."""

import pytest

from teg.settings import ProxyAddress, Settings
from tests.support.environments import problems, read


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
