"""A Docker Engine in its bad moments: HTTP over a Unix socket that hangs, answers 500, nonsense, or half an answer."""

import json
import socketserver
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

VERSION = {"ApiVersion": "1.41", "Version": "20.10.24", "Arch": "amd64"}

#: Body of an answer, a status with a message, or one of the words of `_Handler`.
Mood = dict[str, Any] | list[Any] | tuple[int, str] | str


class SickEngine(socketserver.ThreadingUnixStreamServer):
    """`moods` maps the end of a path to what happens there; `mood` is for all others."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, path: Path) -> None:
        self.mood: Mood = (404, "no such container")
        self.moods: dict[str, Mood] = {"/version": VERSION}
        self.asked: list[str] = []
        self.released = threading.Event()
        self.answering = threading.Event()  #: the moods "late" and "delayed" wait for it
        super().__init__(str(path), _Handler)

    def mood_of(self, path: str) -> Mood:
        plain = path.partition("?")[0]
        return next((mood for end, mood in self.moods.items() if plain.endswith(end)), self.mood)


class _Handler(BaseHTTPRequestHandler):
    server: SickEngine
    protocol_version = "HTTP/1.1"

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *arguments: Any) -> None: ...

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        mood = self.server.mood_of(self.path)
        if mood == "hang":
            self.server.released.wait(60)
            self.close_connection = True
        elif mood == "close":
            self.close_connection = True
        elif mood == "half":
            self._head(200, {"Content-Length": "1000"})
            self.wfile.write(b'{"Id": ')
            self.close_connection = True
        elif mood == "late":
            self.server.answering.wait(60)
            self._endless()
        elif mood == "delayed":
            self.server.answering.wait(60)
            self._answer(200, b"{}")
        elif mood == "endless":
            self._endless()
        elif mood == "nonsense":
            self._answer(200, b"<html>It works!</html>")
        elif isinstance(mood, tuple):
            self._answer(mood[0], json.dumps({"message": mood[1]}).encode())
        else:
            self._answer(200, json.dumps(mood).encode())

    do_POST = do_DELETE = do_GET  # noqa: N815 - names of http.server

    def _endless(self) -> None:
        """A byte now and then: no time-out of a socket ever notices."""
        self._head(200, {"Transfer-Encoding": "chunked"})
        try:
            while not self.server.released.wait(0.05):
                self.wfile.write(b"1\r\n \r\n")
        except OSError:
            self.close_connection = True

    def _answer(self, status: int, body: bytes) -> None:
        self._head(status, {"Content-Length": str(len(body)), "Content-Type": "application/json"})
        self.wfile.write(body)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


@contextmanager
def sick_engine() -> Iterator[SickEngine]:
    """The socket's path has to be short, so it is not in pytest's directory."""
    with tempfile.TemporaryDirectory(prefix="teg-sick-") as directory:
        server = SickEngine(Path(directory) / "docker.sock")
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        serving.start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()
            server.server_close()
            serving.join(10)
