"""The routes of the status page, as a WSGI application: who may, and what they get.

Everything shown is fetched as JSON and put into the page as text by its own script; no markup is ever made here.
"""

import hmac
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from teg.console.page.guards import HEADERS, Names, same_origin
from teg.console.page.looking import Looking
from teg.console.page.metrics import CONTENT_TYPE, open_metrics
from teg.console.page.picture import PageSources
from teg.console.page.sessions import Session, Sessions, TooOften
from teg.console.page.tails import Tails
from teg.domain.errors import Refused, Unavailable

logger = logging.getLogger("gateway.page")

STATIC = Path(__file__).with_name("static")
#: path → file and type: a path is looked up, never built.
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/plots.js": ("plots.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
#: Of the remote calls those that the page offers; what a setting disables stays disabled.
OFFERED = (
    "ping",
    "init_files",
    "restart_controller",
    "archive_republish_messages",
    "dead_letters",
    "set_log_level",
    "exit",
    "reboot",
)
COOKIE = "teg_session"
MAX_BODY = 4_096
JSON = "application/json"


class Stop(Exception):  # noqa: N818
    """Ends a request with a status and a sentence."""

    def __init__(self, status: str, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """One request; header names as WSGI has them."""

    environ: dict[str, Any]

    @property
    def method(self) -> str:
        return str(self.environ["REQUEST_METHOD"])

    @property
    def path(self) -> str:
        return str(self.environ.get("PATH_INFO", ""))

    @property
    def client(self) -> str:
        return str(self.environ.get("REMOTE_ADDR", ""))

    def header(self, name: str) -> str:
        return str(self.environ.get(f"HTTP_{name}", ""))

    @property
    def token(self) -> str:
        pairs = (part.strip().partition("=") for part in self.header("COOKIE").split(";"))
        return next((value for name, _, value in pairs if name == COOKIE), "")

    def body(self) -> dict[str, Any]:
        """Raises Stop for what is no JSON object of a bounded size."""
        if str(self.environ.get("CONTENT_TYPE", "")).partition(";")[0].strip().lower() != JSON:
            raise Stop("415 Unsupported Media Type", f"only {JSON} is taken")
        text = self.environ["wsgi.input"].read(MAX_BODY + 1)
        if len(text) > MAX_BODY:
            raise Stop("413 Content Too Large", f"at most {MAX_BODY} bytes")
        try:
            found = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise Stop("400 Bad Request", "this is no JSON") from error
        if not isinstance(found, dict):
            raise Stop("400 Bad Request", "this is no JSON object")
        return found


@dataclass(frozen=True, slots=True)
class Answer:
    content: bytes
    kind: str = JSON
    status: str = "200 OK"
    headers: tuple[tuple[str, str], ...] = field(default=())


class StatusPage:
    """The application. `call(method, params)` does what a remote call does, by the same rules."""

    def __init__(
        self,
        *,
        sources: PageSources,
        looking: Looking,
        tails: Tails,
        call: Callable[[str, Any], Any],
        sessions: Sessions,
        names: Names,
    ) -> None:
        self._sources = sources
        self._looking = looking
        self._tails = tails
        self._call = call
        self._sessions = sessions
        self._names = names
        self._routes: dict[tuple[str, str], Callable[[Request], Answer]] = {
            ("GET", "/healthz"): lambda _: Answer(b"ok\n", "text/plain"),
            ("GET", "/readyz"): self._ready,
            ("GET", "/metrics"): self._metrics,
            ("GET", "/api/session"): self._session,
            ("GET", "/api/picture"): self._picture,
            ("GET", "/api/history"): self._history,
            ("GET", "/api/log/gateway"): lambda request: self._log(request, "gateway"),
            ("GET", "/api/log/controller"): lambda request: self._log(request, "controller"),
            ("POST", "/api/sign-in"): self._sign_in,
            ("POST", "/api/sign-out"): self._sign_out,
            ("POST", "/api/call"): self._do,
            **{("GET", path): self._file for path in FILES},
        }

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        request = Request(environ)
        try:
            answer = self._answer(request)
        except Stop as stop:
            answer = _refusal(stop.status, stop)
        except TooOften as reason:
            answer = _refusal("429 Too Many Requests", reason)
        except Refused as reason:
            answer = _refusal("403 Forbidden", reason)
        except Unavailable as reason:
            answer = _refusal("503 Service Unavailable", reason)
        length = ("Content-Length", str(len(answer.content)))
        start_response(answer.status, [("Content-Type", answer.kind), length, *HEADERS, *answer.headers])
        return [b"" if request.method == "HEAD" else answer.content]

    def _answer(self, request: Request) -> Answer:
        if not self._names.ours(request.header("HOST")):
            raise Stop("421 Misdirected Request", "this name is not the gateway's; see TEG_CONSOLE_NAMES")
        method = "GET" if request.method == "HEAD" else request.method
        route = self._routes.get((method, request.path))
        if route is None:
            known = any(path == request.path for _, path in self._routes)
            raise Stop("405 Method Not Allowed" if known else "404 Not Found", "there is nothing here")
        if method == "POST" and not same_origin(
            request.header("ORIGIN"), request.header("SEC_FETCH_SITE"), request.header("HOST")
        ):
            raise Stop("403 Forbidden", "another page asked for this")
        return route(request)

    # --- for everybody -------------------------------------------------------------------------------------

    def _file(self, request: Request) -> Answer:
        name, kind = FILES[request.path]
        return Answer((STATIC / name).read_bytes(), kind)

    def _ready(self, _: Request) -> Answer:
        """Ready: records are taken in, and there is a session to send them through. Says no more than that."""
        status = self._seen()["status"]
        missing = [] if status["connection"]["connected"] else ["no session with the server"]
        missing += ["the archive is not available"] if "error" in status["archive"] else []
        text = ("; ".join(missing) or "ready") + "\n"
        return Answer(text.encode(), "text/plain", "503 Service Unavailable" if missing else "200 OK")

    def _seen(self) -> dict[str, Any]:
        found: dict[str, Any] = orjson.loads(self._looking.seen()[1])
        if "status" not in found:
            raise Unavailable(str(found.get("error")))
        return found

    def _session(self, request: Request) -> Answer:
        session = self._found(request)
        return _json(
            {
                "password_set": self._sessions.password_set,
                "signed_in": session is not None,
                "csrf": session.csrf if session else None,
                "offered": OFFERED if session else (),
            }
        )

    def _sign_in(self, request: Request) -> Answer:
        password = request.body().get("password")
        if not isinstance(password, str):
            raise Stop("400 Bad Request", "no password")
        try:
            token, session = self._sessions.sign_in(password, request.client)
        except Refused:
            logger.warning("status page: a wrong password from %s", request.client)
            raise
        logger.info("status page: signed in from %s", request.client)
        secure = "; Secure" if request.header("ORIGIN").startswith("https://") else ""
        cookie = f"{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict{secure}"
        return _json({"csrf": session.csrf, "offered": OFFERED}, ("Set-Cookie", cookie))

    # --- for who may look ----------------------------------------------------------------------------------

    def _picture(self, request: Request) -> Answer:
        self._must_see(request)
        age_s, seen = self._looking.seen()
        return Answer(b'{"age_s":%.1f,"picture":%b}' % (age_s, seen))

    def _history(self, request: Request) -> Answer:
        self._must_see(request)
        return Answer(self._looking.curves())

    def _log(self, request: Request, source: str) -> Answer:
        self._must_see(request)
        return _json({"lines": self._tails.lines(source)})

    def _metrics(self, request: Request) -> Answer:
        """A scraper has no cookie: the password as basic authorization lets it read these numbers, and no more."""
        authorization = request.header("AUTHORIZATION")
        if authorization and self._sessions.password_set:
            self._sessions.check_basic(authorization, request.client)
        elif self._sessions.password_set and self._found(request) is None:
            answer = _refusal("401 Unauthorized", Refused("the password is needed"))
            return Answer(answer.content, JSON, answer.status, (("WWW-Authenticate", 'Basic realm="teg"'),))
        text = open_metrics(self._seen(), self._sources.published(), self._sources.published_bytes())
        return Answer(text.encode(), CONTENT_TYPE)

    # --- for who is signed in ------------------------------------------------------------------------------

    def _do(self, request: Request) -> Answer:
        session = self._must_be_signed_in(request)
        body = request.body()
        if not hmac.compare_digest(request.header("X_CSRF_TOKEN").encode(), session.csrf.encode()):
            raise Stop("403 Forbidden", "this did not come from the page; load it anew")
        method = body.get("method")
        if method not in OFFERED:
            raise Stop("403 Forbidden", "the status page does not offer this")
        logger.info("status page: %s asked for from %s", method, request.client)
        return _json({"answer": self._call(str(method), body.get("params"))})

    def _sign_out(self, request: Request) -> Answer:
        self._sessions.sign_out(request.token)
        return _json({}, ("Set-Cookie", f"{COOKIE}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0"))

    def _found(self, request: Request) -> Session | None:
        return self._sessions.find(request.token, request.client) if request.token else None

    def _must_see(self, request: Request) -> None:
        if self._sessions.password_set:
            self._must_be_signed_in(request)

    def _must_be_signed_in(self, request: Request) -> Session:
        session = self._found(request)
        if session is None:
            raise Stop("401 Unauthorized", "sign in first")
        return session


def _json(value: Any, *headers: tuple[str, str]) -> Answer:
    return Answer(orjson.dumps(value), headers=headers)


def _refusal(status: str, reason: Exception) -> Answer:
    return Answer(orjson.dumps({"error": str(reason)}), JSON, status)
