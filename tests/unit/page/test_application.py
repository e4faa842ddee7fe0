"""The routes: who sees, who acts, and what is refused; asked as a browser, a scraper, and somebody hostile ask."""

import base64
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from teg.console.page.application import FILES, MAX_BODY, OFFERED, STATIC
from teg.console.page.guards import HEADERS
from teg.domain.errors import Unavailable
from tests.support.page import PASSWORD, PageRig, Reply

Make = Callable[..., PageRig]
SEEN = ["/api/picture", "/api/history", "/api/log/gateway", "/api/log/controller", "/metrics"]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[PageRig] = []

    def start(password: str | None = None) -> PageRig:
        made.append(PageRig(password))
        made[-1].looking.start()
        return made[-1]

    yield start
    for rig in made:
        rig.looking.stop()


def families_of(reply: Reply) -> dict[str, Any]:
    parsed = text_string_to_metric_families(reply.content.decode())  # type: ignore[no-untyped-call]
    return {family.name: family for family in parsed}


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"any:{password}".encode()).decode()


# --- looking -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*SEEN, *FILES, "/api/session", "/healthz", "/readyz"])
def test_without_a_password_everybody_who_reaches_it_looks(make: Make, path: str) -> None:
    reply = make().get(path)
    assert reply.code == 200
    assert reply.headers.items() >= dict(HEADERS).items()
    assert int(reply.headers["Content-Length"]) == len(reply.content) > 0


@pytest.mark.parametrize("path", SEEN)
def test_with_a_password_nobody_looks_who_is_not_signed_in(make: Make, path: str) -> None:
    rig = make(PASSWORD)
    assert rig.get(path).code == 401
    assert rig.get(path, COOKIE="teg_session=x").code == 401
    rig.sign_in()
    assert rig.get(path).code == 200
    rig.client = "10.0.0.66"
    assert rig.get(path).code == 401, "the cookie was carried elsewhere"


@pytest.mark.parametrize("path", [*FILES, "/healthz", "/readyz", "/api/session"])
def test_what_tells_nothing_needs_no_password(make: Make, path: str) -> None:
    reply = make(PASSWORD).get(path)
    assert reply.code == 200
    assert b'"controller_state"' not in reply.content


def test_the_picture_is_what_the_status_socket_says(make: Make) -> None:
    rig = make()
    assert rig.get("/api/picture").body["picture"]["status"] == rig.status


def test_many_who_look_cost_one_look(make: Make) -> None:
    rig = make()
    for _ in range(50):
        rig.get("/api/picture")
    assert rig.looks < 10


def test_a_head_has_no_body(make: Make) -> None:
    reply = make().ask("HEAD", "/")
    assert (reply.code, reply.content) == (200, b"")
    assert int(reply.headers["Content-Length"]) > 0


# --- acting ------------------------------------------------------------------------------------------------


def test_signed_in_with_the_token_something_is_done(make: Make) -> None:
    rig = make(PASSWORD)
    cookie = rig.sign_in().headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert rig.post("/api/call", {"method": "ping", "params": None}).body == {"answer": "OK"}
    assert rig.calls == [("ping", None)]


def test_the_cookie_is_secure_behind_tls(make: Make) -> None:
    rig = make(PASSWORD)
    asked = {"HOST": "teg.example.org", "ORIGIN": "https://teg.example.org"}
    assert "; Secure" in rig.post("/api/sign-in", {"password": PASSWORD}, **asked).headers["Set-Cookie"]


def test_without_a_password_nothing_is_done_by_anybody(make: Make) -> None:
    rig = make()
    assert rig.get("/api/session").body["offered"] == []
    assert rig.post("/api/sign-in", {"password": ""}).code == 403
    assert rig.post("/api/call", {"method": "ping"}).code == 401
    assert rig.calls == []


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"X_CSRF_TOKEN": ""}, 403),
        ({"X_CSRF_TOKEN": "guess"}, 403),
        ({"X_CSRF_TOKEN": "\u00e9"}, 403),
        ({"ORIGIN": "http://evil.example"}, 403),
        ({"ORIGIN": "null"}, 403),
        ({"SEC_FETCH_SITE": "cross-site"}, 403),
        ({"CONTENT_TYPE": "text/plain"}, 415),
        ({"CONTENT_TYPE": "application/x-www-form-urlencoded"}, 415),
        ({"COOKIE": ""}, 401),
        ({"AUTHORIZATION": basic(PASSWORD), "COOKIE": ""}, 401),
        ({"HOST": "evil.example"}, 421),
    ],
)
def test_another_page_cannot_act_through_the_operators_browser(make: Make, headers: dict[str, str], code: int) -> None:
    rig = make(PASSWORD)
    rig.sign_in()
    assert rig.post("/api/call", {"method": "ping"}, **headers).code == code
    assert rig.calls == []


@pytest.mark.parametrize(
    "method", ["run_command", "shutdown", "archive_discard_messages", "", None, 5, ["ping"], {"a": 1}]
)
def test_only_what_is_offered_can_be_asked_for(make: Make, method: object) -> None:
    rig = make(PASSWORD)
    rig.sign_in()
    assert rig.post("/api/call", {"method": method}).code == 403
    assert rig.calls == []


def test_signed_out_is_signed_out(make: Make) -> None:
    rig = make(PASSWORD)
    rig.sign_in()
    assert rig.post("/api/sign-out", {}).code == 200
    assert rig.post("/api/call", {"method": "ping"}).code == 401


def test_a_wrong_password_is_refused_and_said_with_its_address(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    rig = make(PASSWORD)
    codes = [rig.post("/api/sign-in", {"password": "hunter2 hunter2"}).code for _ in range(7)]
    assert codes == [403] * 5 + [429] * 2
    assert "10.0.0.2" in caplog.text
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize("body", [b"", b"[]", b"no", b'{"password": 5}', b"{}", b'{"password": null}', b"\xff"])
def test_a_sign_in_that_is_none(make: Make, body: bytes) -> None:
    assert make(PASSWORD).ask("POST", "/api/sign-in", body).code == 400


def test_a_large_body_is_refused(make: Make) -> None:
    assert make(PASSWORD).ask("POST", "/api/sign-in", b"[" * (MAX_BODY + 1)).code == 413


# --- paths and methods -------------------------------------------------------------------------------------

PATHS = [
    "/..",
    "/../page.js",
    "//page.js",
    "/page.js/",
    "/static/page.js",
    "/page.js%00",
    "/page.js\0",
    "/%2e%2e/etc/passwd",
]
PATHS += ["", "/API/picture", "/api/log/..", "/api/log/other", "/index.html", "/application.py"]


@pytest.mark.parametrize("path", PATHS)
def test_what_is_not_in_the_table_is_not_there(make: Make, path: str) -> None:
    assert make().get(path).code == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE", "POST", "PROPFIND", "X"])
def test_other_methods_are_refused_and_no_other_origin_is_welcomed(make: Make, method: str) -> None:
    reply = make().ask(method, "/api/picture", ORIGIN="http://evil.example")
    assert reply.code == 405
    assert not [name for name in reply.headers if name.startswith("Access-Control")]


@pytest.mark.parametrize("path", [*SEEN, *FILES, "/healthz", "/readyz"])
def test_a_foreign_name_sees_nothing(make: Make, path: str) -> None:
    """DNS rebinding: the browser believes that we are evil.example."""
    reply = make().get(path, HOST="evil.example:8765")
    assert reply.code == 421
    assert b"controller" not in reply.content


# --- for programs ------------------------------------------------------------------------------------------


def test_metrics_are_open_metrics(make: Make) -> None:
    reply = make().get("/metrics")
    assert reply.headers["Content-Type"].startswith("application/openmetrics-text")
    families = families_of(reply)
    [delivered] = families["teg_records_delivered"].samples
    assert (delivered.name, delivered.value) == ("teg_records_delivered_total", 7)
    assert {sample.name: sample.value for sample in families["teg_publish_latency_seconds"].samples} == {
        "teg_publish_latency_seconds_count": 4,
        "teg_publish_latency_seconds_sum": 0.5,
    }
    [build] = families["teg_build"].samples
    assert build.labels == {"python": "3.11", "teg_gateway": '0.1 "x\\'}
    assert families["teg_heartbeat_age_seconds"].samples[0].value == 1


def test_metrics_of_parts_that_cannot_be_read_are_left_out(make: Make) -> None:
    rig = make()
    rig.status |= {"archive": {"error": "gone"}, "disk": {"error": "x"}, "controller": {"error": "x"}}
    rig.status["heartbeat"] = {"error": "locked"}
    names = set(families_of(rig.get("/metrics")))
    assert "teg_connected" in names
    assert not names & {"teg_records_pending", "teg_disk_free_bytes", "teg_heartbeat_age_seconds"}


def test_a_scraper_reads_the_metrics_with_the_password_and_nothing_else(make: Make) -> None:
    rig = make(PASSWORD)
    assert "Basic" in rig.get("/metrics").headers["WWW-Authenticate"]
    for _ in range(20):
        assert rig.get("/metrics", AUTHORIZATION=basic(PASSWORD)).code == 200
    assert rig.get("/api/picture", AUTHORIZATION=basic(PASSWORD)).code == 401
    assert rig.get("/metrics", AUTHORIZATION=basic("wrong")).code == 403


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        ("connection", {"connected": False, "last_end": ""}, "no session with the server"),
        ("archive", {"error": "disk"}, "the archive is not available"),
    ],
)
def test_ready_is_less_often_than_healthy(make: Make, part: str, value: dict[str, object], said: str) -> None:
    rig = make()
    rig.status[part] = value
    ready = rig.get("/readyz")
    assert ready.code == 503
    assert said in ready.content.decode()
    assert rig.get("/healthz").code == 200


def test_a_log_that_cannot_be_read_says_why(make: Make) -> None:
    rig = make()

    def broken(lines: int) -> list[str]:
        raise Unavailable("the engine does not answer")

    rig.controller_log = broken
    assert "the engine does not answer" in rig.get("/api/log/controller").body["lines"][0]


# --- the files ---------------------------------------------------------------------------------------------


def test_text_becomes_markup_nowhere() -> None:
    for name in ("page.js", "plots.js"):
        source = (STATIC / name).read_text()
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(|DOMParser|srcdoc", source
        )
    markup = (STATIC / "index.html").read_text()
    assert not re.search(r"\son[a-z]+=|style=|<script(?! type=\"module\" src=\"page.js\")", markup)


def test_the_page_needs_no_network() -> None:
    for file in STATIC.iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "//" not in re.sub(r"(^|\s)// .*", "", text), f"{file.name} names another host"
        assert "@import" not in text
        assert "url(" not in text


def test_every_action_of_the_script_is_offered_and_none_is_forgotten() -> None:
    script = (STATIC / "page.js").read_text()
    assert set(re.findall(r'method: "(\w+)"', script)) - {"POST"} == set(OFFERED)


def test_every_file_is_served_and_no_other() -> None:
    assert {name for name, _ in FILES.values()} == {file.name for file in STATIC.iterdir()}
    assert sum(file.stat().st_size for file in STATIC.iterdir()) < 40_000
