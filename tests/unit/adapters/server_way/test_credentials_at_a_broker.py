"""The kinds of credentials at a real mosquitto, which wants a certificate or has a password file."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from teg.adapters import tls
from teg.adapters.bounded_mqtt_client import client_through
from teg.adapters.mqtt_session import MqttSession, MQTTv5, MQTTv311, Server
from teg.adapters.server_way import Way
from teg.domain.backoff import Backoff
from teg.domain.server.login import Kind, Login
from teg.domain.server.reconnect import ConnectionPolicy
from teg.domain.server.wire import TELEMETRY
from teg.simulator.thingsboard.tls import ServerTls
from tests.support.client_certificates import Pair, issue
from tests.support.outside_programs import mosquitto, program
from tests.support.running import wait_until


@contextmanager
def session(way: Way, login: Login, version: int = MQTTv311) -> Iterator[MqttSession]:
    made = MqttSession(
        Server(way.host, way.port, way.tls, client_through(way.open), (version,)),
        lambda: login,
        lambda *_: None,
        lambda: None,
        ConnectionPolicy(Backoff(first_s=0.05, cap_s=0.1)),
        subscriptions=(),
    )
    made.start()
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, ServerTls, Pair]]:
    """A broker that lets nobody in without a certificate of one authority: its port, its own files, a good pair."""
    folder = tmp_path_factory.mktemp("certified")
    server, pair = ServerTls.create(folder / "tls", ["localhost"]), issue(folder)
    lines = [
        *(f"cafile {pair.authority}", f"certfile {server.certificate_file}", f"keyfile {server.key_file}"),
        *("require_certificate true", "use_identity_as_username true", "allow_anonymous true", "user root"),
    ]
    with mosquitto(folder, *lines) as port:
        yield port, server, pair


def way(certified: tuple[int, ServerTls, Pair], pair: Pair | None) -> Way:
    port, server, _ = certified
    context = tls.client_context(server.ca_file)
    if pair is not None:
        tls.present(context, pair.certificate, pair.key)
    return Way("localhost", port, context)


@pytest.mark.parametrize("version", [MQTTv311, MQTTv5])
def test_our_certificate_is_the_login(certified: tuple[int, ServerTls, Pair], version: int) -> None:
    with session(way(certified, certified[2]), Login(Kind.CERTIFICATE), version) as made:
        wait_until(lambda: made.connected, 20, "connected")
        made.deliver(TELEMETRY, b"{}")


def test_a_server_that_wants_one_says_so(
    certified: tuple[int, ServerTls, Pair], caplog: pytest.LogCaptureFixture
) -> None:
    """With TLS 1.3 its word comes after the handshake, when we read for the first time."""
    with session(way(certified, None), Login.of("T1")):
        wait_until(lambda: "the server wants a client certificate: set TB_CLIENT_CERT" in caplog.text, 20, "it is said")


@pytest.mark.parametrize(
    ("days", "since_days", "words"), [(90, 1, "does not know the authority of our"), (-2, 9, "our client certificate")]
)
def test_a_certificate_that_the_server_does_not_take(
    certified: tuple[int, ServerTls, Pair],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    days: float,
    since_days: float,
    words: str,
) -> None:
    other = issue(tmp_path, days=days, since_days=since_days)
    with session(way(certified, other), Login(Kind.CERTIFICATE)):
        wait_until(lambda: words in caplog.text, 20, "it is said")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A broker with a password file."""
    folder = tmp_path_factory.mktemp("guarded")
    passwords = folder / "passwords"
    passwords.touch(mode=0o600)
    maker = shutil.which("mosquitto_passwd") or program("mosquitto_passwd")
    subprocess.run([maker, "-b", str(passwords), "user-1", "s3cret"], check=True, capture_output=True, timeout=60)
    with mosquitto(folder, "allow_anonymous false", f"password_file {passwords}", "user root") as port:
        yield port


@pytest.mark.parametrize("version", [MQTTv311, MQTTv5])
@pytest.mark.parametrize("client_id", ["", "client-1"])
def test_user_and_password(guarded: int, version: int, client_id: str) -> None:
    login = Login(Kind.BASIC, "user-1", "s3cret", client_id or "any")
    with session(Way("127.0.0.1", guarded), login, version) as made:
        wait_until(lambda: made.connected, 20, "connected")
        made.deliver(TELEMETRY, b"{}")


@pytest.mark.parametrize("version", [MQTTv311, MQTTv5])
@pytest.mark.parametrize("login", [Login(Kind.BASIC, "user-1", "wr0ng"), Login(Kind.BASIC, "user-2", "s3cret")])
def test_a_wrong_one_is_named_by_its_settings(
    guarded: int, version: int, login: Login, caplog: pytest.LogCaptureFixture
) -> None:
    with session(Way("127.0.0.1", guarded), login, version):
        wait_until(lambda: "compare TB_MQTT_CLIENT_ID, TB_MQTT_USER and TB_MQTT_PASSWORD" in caplog.text, 20, "said")
    assert "wr0ng" not in caplog.text
