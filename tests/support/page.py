"""A status page over made-up sources, asked as WSGI asks it."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from teg.console.page.application import StatusPage
from teg.console.page.guards import Names
from teg.console.page.history import ACCOUNT
from teg.console.page.looking import Looking
from teg.console.page.picture import PageSources
from teg.console.page.sessions import Sessions
from teg.console.page.tails import Tails

PASSWORD = "correct horse battery"
HOST = "127.0.0.1:8765"

STATUS: Mapping[str, Any] = {
    "versions": {"python": "3.11", "teg-gateway": '0.1 "x\\'},
    "now_ms": 1_767_225_600_000,
    "uptime_s": 60,
    "connection": {
        "connected": True,
        "sessions": 3,
        "since_ms": 1_767_225_590_000,
        "last_end": "",
        "next_try_ms": None,
    },
    "delivery": {"rows_per_s": 1.5, "backlog_ends_in_s": 0},
    "archive": {"accepted": 9, "delivered": 7, "stored": 5, "pending": 2, "evicted": 0, "lost": 0, "dead_letters": 1},
    "disk": {"total_bytes": 32_000_000_000, "free_bytes": 8_000_000_000},
    "controller": {"controller_state": "running", "controller_restarts": 2},
    "heartbeat": {"last_ms": 1_767_225_599_000},
    "troubles": {},
    "log_level": "INFO",
}


@dataclass
class Reply:
    status: str
    headers: dict[str, str]
    content: bytes

    @property
    def body(self) -> Any:
        return orjson.loads(self.content)

    @property
    def code(self) -> int:
        return int(self.status.split()[0])


@dataclass
class PageRig:
    """`status` is what the status socket would answer; `calls` what the page asked the dispatcher for."""

    password: str | None = None
    status: dict[str, Any] = field(default_factory=lambda: dict(STATUS))
    calls: list[tuple[str, Any]] = field(default_factory=list)
    newest: list[bytes] = field(default_factory=list)
    looks: int = 0
    update: Callable[[], Mapping[str, Any]] = dict
    controller_log: Callable[[int], list[str]] = lambda lines: ["out"]
    cookie: str = ""
    csrf: str = ""
    client: str = "10.0.0.2"

    def __post_init__(self) -> None:
        self.sources = sources = PageSources(
            report=self._report,
            tally=lambda: {**dict.fromkeys(ACCOUNT, 0), "accepted": 9, "delivered": 7, "pending": 2},
            published=lambda: (4, 0.5),
            published_bytes=lambda: 1_000,
            newest=lambda: self.newest,
            update=lambda: self.update(),
            files=lambda: {"problem": "", "files": []},
            calls=lambda count: [],
            lanes=lambda: {"rpc": {"workers": 1, "waiting": 0}},
            dead_letters=lambda limit: [],
        )  # fmt: skip
        self.looking = Looking(sources)
        logs = {"gateway": lambda lines: ["line"], "controller": lambda lines: self.controller_log(lines)}
        self.page = StatusPage(
            sources=sources,
            looking=self.looking,
            tails=Tails(logs),
            call=self._call,
            sessions=Sessions(self.password),
            names=Names(HOST, frozenset({"teg.example.org"})),
        )

    def _call(self, method: str, params: Any) -> str:
        self.calls.append((method, params))
        return "OK"

    def _report(self) -> bytes:
        self.looks += 1
        return orjson.dumps(self.status)

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Reply:
        answered: list[Any] = []
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method, "PATH_INFO": path, "REMOTE_ADDR": self.client, "HTTP_HOST": HOST,
            "CONTENT_TYPE": "application/json", "wsgi.input": io.BytesIO(body),
            **({"HTTP_COOKIE": f"other=1; {self.cookie}"} if self.cookie else {}),
            **{name if name == "CONTENT_TYPE" else f"HTTP_{name}": value for name, value in headers.items()},
        }  # fmt: skip
        content = b"".join(self.page(environ, lambda status, found: answered.extend((status, found))))
        return Reply(answered[0], dict(answered[1]), content)

    def get(self, path: str, **headers: str) -> Reply:
        return self.ask("GET", path, b"", **headers)

    def post(self, path: str, body: Any, **headers: str) -> Reply:
        token = {"X_CSRF_TOKEN": self.csrf} if self.csrf else {}
        return self.ask("POST", path, orjson.dumps(body), **{**token, **headers})

    def sign_in(self) -> Reply:
        reply = self.post("/api/sign-in", {"password": self.password})
        assert reply.code == 200, reply
        self.cookie, self.csrf = reply.headers["Set-Cookie"].partition(";")[0], reply.body["csrf"]
        return reply
