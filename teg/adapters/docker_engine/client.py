"""Talking to the Docker Engine so that nobody waits beyond a deadline and no exception of a library gets out.

A call that is given up is broken off at its socket; what the engine had begun by then it may still do.
"""

import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import docker
from docker.errors import APIError, DockerException, NotFound
from docker.types import CancellableStream
from urllib3.exceptions import HTTPError

from teg.domain.errors import Refused, Unavailable
from teg.domain.supervision.runtime import Cancelled

T = TypeVar("T")

#: Every short call; the engine answers in milliseconds unless it is sick or the SD card is.
CALL_DEADLINE_S = 15.0
#: Silence on the socket that ends a short call.
SOCKET_TIMEOUT_S = 10.0
#: How often a running call looks for a cancellation.
POLL_S = 0.25


class NotThere(Refused):
    """The engine knows no such container or image."""


class EngineClient(docker.APIClient):
    """docker-py without its calls that wait for ever, and with a way to break off a stream from another thread."""

    _answer: Any = None
    _aborted = False

    def __init__(self, host: str, timeout_s: float) -> None:
        try:
            super().__init__(base_url=host, version="auto", timeout=math.ceil(SOCKET_TIMEOUT_S))
        except BaseException:  # it asks the engine for its version
            self.close()
            raise
        self.timeout = math.ceil(timeout_s)

    def send(self, request: Any, **options: Any) -> Any:
        """`pull` and `events` pass no time-out; `timeout` of the constructor holds for them, too."""
        if self._aborted:  # between two requests of one call: what nobody waits for must not be done later
            raise DockerException("the call was given up")
        options["timeout"] = options.get("timeout") or (SOCKET_TIMEOUT_S, self.timeout)
        self._answer = super().send(request, **options)
        if self._aborted:  # given up before the engine began to answer
            self.abort()
        return self._answer

    def close(self) -> None:
        """The pool does not know of a connection whose stream was left before its end."""
        if self._answer is not None:
            self._answer.close()
        super().close()

    def abort(self) -> None:
        """End the call, at the latest when the engine begins to answer; it stops a build whose connection ends."""
        self._aborted = True
        if self._answer is not None:
            with suppress(OSError, AttributeError):  # not connected any more
                CancellableStream(iter(()), self._answer).close()


def _never() -> bool:
    return False


class Engine:
    """Makes a client for each call: a stream never blocks another call, and an engine that came back is met afresh."""

    def __init__(self, host: str) -> None:
        self.host = host

    def call(
        self,
        work: Callable[[Any], T],
        deadline_s: float = CALL_DEADLINE_S,
        cancelled: Callable[[], bool] = _never,
        silence_s: float | None = None,
    ) -> T:
        """Run `work` with an `EngineClient` of its own (typed Any: docker-py's stubs know half of it).

        `silence_s`: a stream that says nothing for so long is given up before the deadline.

        Raises:
            NotThere: the engine answered 404.
            Unavailable: no engine, an answer of 5xx, nonsense, or none within `deadline_s`.
            Cancelled: `cancelled()` became true; the connection was closed.
            Refused: any other answer of 4xx.
        """
        clients: list[EngineClient] = []
        future: Future[T] = Future()
        given_up = threading.Event()
        socket_timeout_s = silence_s or (deadline_s if deadline_s > CALL_DEADLINE_S else SOCKET_TIMEOUT_S)

        def run() -> None:
            try:
                with self._client(socket_timeout_s) as client:
                    clients.append(client)
                    if not given_up.is_set():
                        future.set_result(work(client))
            except BaseException as error:  # noqa: BLE001 - handed to the caller's thread
                future.set_exception(error)

        threading.Thread(target=run, name="docker-call", daemon=True).start()
        try:
            _wait(future, deadline_s, cancelled)
        except (Unavailable, Refused):
            given_up.set()
            for client in clients:
                client.abort()
            raise
        with translated(self.host):
            return future.result(timeout=0)

    @contextmanager
    def _client(self, timeout_s: float) -> Iterator[EngineClient]:
        _reach(self.host)
        client = EngineClient(self.host, timeout_s)
        try:
            yield client
        finally:
            client.close()


def _reach(host: str) -> None:
    """docker-py leaves a socket open when nobody listens; and the plain error says more than its five wrappers."""
    scheme, _, path = host.partition("://")
    if scheme == "unix":
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(SOCKET_TIMEOUT_S)
            probe.connect(path)


def _wait(future: "Future[Any]", deadline_s: float, cancelled: Callable[[], bool]) -> None:
    """What nobody can cancel is waited for asleep: the watch of the engine's events does so all the time."""
    done = threading.Event()
    future.add_done_callback(lambda _: done.set())
    end_s = time.monotonic() + deadline_s
    while not done.wait(deadline_s if cancelled is _never else POLL_S):
        if cancelled():
            raise Cancelled("cancelled: it is not wanted any more")
        if time.monotonic() >= end_s:
            raise Unavailable(f"the Docker Engine did not finish within {deadline_s:g} s")


@contextmanager
def translated(host: str) -> Iterator[None]:
    """docker-py raises its own, requests' (which are OSErrors), urllib3's and the JSON parser's exceptions."""
    try:
        yield
    except NotFound as error:
        raise NotThere(_explained(error)) from error
    except APIError as error:
        if error.status_code is not None and 400 <= error.status_code < 500:
            raise Refused(_explained(error)) from error
        raise Unavailable(f"the Docker Engine answered {error.status_code}: {_explained(error)}") from error
    except (DockerException, OSError, HTTPError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unavailable(f"the Docker Engine at {host} cannot be used: {_cause(error)}") from error


def _explained(error: APIError) -> str:
    return str(error.explanation or error)[:1000]


def _cause(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error) or type(error).__name__)[:300]
