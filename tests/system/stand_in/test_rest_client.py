"""Our own client of the REST API, with the stand-in's."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from teg.adapters.thingsboard_rest import PAGE, ThingsBoardRest
from teg.domain.errors import Refused, Unavailable
from teg.simulator.thingsboard.server import ThingsBoard
from teg.simulator.thingsboard.tls import ServerTls
from tests.support.outside_programs import tinyproxy

USER, PASSWORD = "tenant@thingsboard.org", "tenant"


@pytest.fixture
def server() -> Iterator[ThingsBoard]:
    with ThingsBoard(rest_port=0) as server:
        yield server


def test_what_it_makes_it_finds_lists_and_deletes(server: ThingsBoard) -> None:
    with ThingsBoardRest(server.rest_url + "/", USER, PASSWORD) as rest:
        made = rest.post("/api/device", {"name": "pi-07"}, accessToken="T1")
        assert rest.find("/api/tenant/devices", deviceName="pi-07")["id"] == made["id"]
        assert rest.find("/api/tenant/devices", deviceName="pi-08") is None
        rest.delete(f"/api/device/{made['id']['id']}")
        assert rest.find(f"/api/device/{made['id']['id']}") is None


def test_a_list_of_several_pages_is_read_to_its_end(server: ThingsBoard) -> None:
    names = {f"pi-{number}" for number in range(PAGE + 1)}
    for name in names:
        server.add_device(name, token=f"T-{name}")
    with ThingsBoardRest(server.rest_url, USER, PASSWORD) as rest:
        assert {device["name"] for device in rest.pages("/api/tenant/devices")} == names


def test_what_the_server_refuses_is_told_in_its_words(server: ThingsBoard) -> None:
    with pytest.raises(Refused, match="Invalid username or password") as refused:
        ThingsBoardRest(server.rest_url, USER, "s3cret")
    assert "s3cret" not in str(refused.value)
    with ThingsBoardRest(server.rest_url, USER, PASSWORD) as rest:
        rest.post("/api/device", {"name": "pi-07"})
        with pytest.raises(Refused, match=r"Device with such name already exists! \(400\)"):
            rest.post("/api/device", {"name": "pi-07"})


def test_no_answer_is_not_a_refusal(server: ThingsBoard) -> None:
    with ThingsBoard(rest_port=0) as gone:
        url = gone.rest_url
    with pytest.raises(Unavailable, match="does not answer"):
        ThingsBoardRest(url, USER, PASSWORD)


@pytest.mark.parametrize("url", ["tb.example.org", "mqtt://tb.example.org", "https://", ""])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(Refused, match="not the address of a server"):
        ThingsBoardRest(url, USER, PASSWORD)


class Page(BaseHTTPRequestHandler):
    """Something else than ThingsBoard: the login page of a network, a proxy without a server behind it."""

    status = 200

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.status)
        self.send_header("Location", "http://login.example.org/")
        self.end_headers()
        self.wfile.write(b"<html>welcome to the hotel</html>")

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (200, Refused, "answers, but not as ThingsBoard does"),
        (302, Refused, r"sends on to http://login\.example\.org/: give that address"),
        (502, Unavailable, r"Bad Gateway \(502\)"),
    ],
)
def test_what_is_no_thingsboard_is_not_taken_for_one(status: int, error: type[Exception], words: str) -> None:
    with HTTPServer(("127.0.0.1", 0), type("Answer", (Page,), {"status": status})) as other:
        thread = threading.Thread(target=other.handle_request)
        thread.start()
        with pytest.raises(error, match=words):
            ThingsBoardRest(f"http://127.0.0.1:{other.server_port}", USER, PASSWORD)
        thread.join(10)


def test_through_a_proxy_that_wants_a_login(server: ThingsBoard, tmp_path: Path) -> None:
    """Without the password the proxy's refusal is told, and the words of the address are not."""
    with tinyproxy(tmp_path, "teg:s3cret-word") as proxy:
        with ThingsBoardRest(server.rest_url, USER, PASSWORD, proxy_url=proxy.url) as rest:
            assert rest.find("/api/tenant/devices", deviceName="nobody") is None
        assert "/api/auth/login" in proxy.log_path.read_text()
        wrong = proxy.url.replace("s3cret", "other")
        with pytest.raises((Refused, Unavailable)) as refused:  # tinyproxy may reset what it has not read
            ThingsBoardRest(server.rest_url, USER, PASSWORD, proxy_url=wrong)
    assert "word" not in str(refused.value)


class _Refusing(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.send_response(401)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Not into the test's output."""


def test_the_named_authority_counts_whatever_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`REQUESTS_CA_BUNDLE` and `CURL_CA_BUNDLE` are set on many machines."""
    tls, other = ServerTls.create(tmp_path / "server"), ServerTls.create(tmp_path / "other")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(other.ca_file))
    with HTTPServer(("127.0.0.1", 0), _Refusing) as web:
        web.socket = tls.context().wrap_socket(web.socket, server_side=True)
        threading.Thread(target=web.serve_forever, daemon=True).start()
        with pytest.raises(Refused, match="401"):
            ThingsBoardRest(f"https://127.0.0.1:{web.server_port}", "user", "password", tls.ca_file)
        web.shutdown()
