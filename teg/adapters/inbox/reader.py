"""A hostile SQLite file behind a reader process of its own: started, asked, given up on, and started anew.

The process gets a socket, a directory and a name; no environment, no other descriptor, nothing of ours in its memory.
What it answers is checked (`wire`), how long it takes is bounded, and whatever goes wrong ends it: the next file, or
the next try, meets a new one.
"""

import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import orjson

import teg
from teg.adapters.inbox import directory, wire
from teg.adapters.inbox.confinement import Layers
from teg.adapters.inbox.processor_time import ProcessorTime
from teg.adapters.inbox.wire import Answer, BrokenFrame
from teg.domain.backoff import Backoff
from teg.domain.errors import Unavailable
from teg.domain.telemetry.ingest import Replaced

logger = logging.getLogger("gateway.inbox")

#: A request that is not answered by then has met something without end. Every statement is bounded well below it.
REQUEST_S = 8.0
#: How often it is looked at, while no answer comes, how much of the processor it takes.
LOOK_S = 0.5
START_S = 15.0
END_S = 2.0
#: Between tries at a file that makes trouble. Another file under the name is met at once.
RETRY = Backoff(first_s=1.0, cap_s=60.0)
#: A file that was written to since is looked at again after this long: the controller may have set it right.
CHANGED_RETRY_S = 5.0
#: Between two starts: files that are exchanged all the time do not cost us all the time.
BETWEEN_STARTS_S = 0.2

_START = "import sys; sys.path.append(sys.argv.pop(1)); from teg.adapters.inbox.child import main; main()"


class ReaderProcess:
    """One running reader; raises what sockets raise, TimeoutError, EOFError and BrokenFrame."""

    def __init__(self, place: Path, name: str, names: int = 1) -> None:
        directory_fd = directory.open_directory(place)
        try:
            found = os.fstat(directory_fd)
            self.place = (found.st_dev, found.st_ino)
            self._channel, self._process = _start_child(directory_fd, name, names)
        finally:
            os.close(directory_fd)
        try:
            self.layers: Layers = _layers(wire.receive(self._channel, time.monotonic() + START_S))
        except EOFError:
            raise ChildProcessError(f"the reader {self.kill()} at its start") from None
        except BaseException:
            self.kill()
            raise
        self._time = ProcessorTime(self.pid)
        self._time.answered()

    @property
    def pid(self) -> int:
        return int(self._process.pid)

    def ask(self, request: bytes, timeout_s: float) -> tuple[Answer, bytes]:
        deadline_s = time.monotonic() + timeout_s
        self._channel.settimeout(timeout_s)
        self._time.humble_if_greedy()
        wire.send(self._channel, request)
        while not select.select([self._channel], [], [], LOOK_S)[0] and time.monotonic() < deadline_s:
            self._time.humble_if_greedy()
        answer = wire.receive(self._channel, deadline_s)
        self._time.answered()
        try:
            return Answer(answer[0]), answer[1:]
        except (IndexError, ValueError) as error:
            raise BrokenFrame("an answer of no known kind") from error

    def end(self) -> None:
        """Let it close its file and go by itself; killed if it does not."""
        self._channel.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> str:
        """Returns how it ended."""
        self._channel.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(0.1)  # it may have ended by itself, which tells more than our signal
            return _ending(self._process.returncode)
        self._process.kill()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:  # inside of a disk that does not answer: it ends when the disk does
            return "could not be killed yet"
        return "was killed"


def _start_child(directory_fd: int, name: str, names: int) -> tuple[socket.socket, "subprocess.Popen[bytes]"]:
    ours, theirs = socket.socketpair()
    root = str(Path(teg.__path__[0]).parent)
    with theirs:
        try:
            return ours, subprocess.Popen(
                [sys.executable, "-I", "-B", "-c", _START, root, str(directory_fd), name, str(names)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={},
                cwd="/",
                pass_fds=(directory_fd,),
                start_new_session=True,
            )
        except OSError:
            ours.close()
            raise


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with status {code}"
    with suppress(ValueError):
        return f"ended by {signal.Signals(-code).name}"
    return f"ended by signal {-code}"


def _layers(data: bytes) -> Layers:
    try:
        return {str(name): wire.printable(str(reason)) for name, reason in orjson.loads(data).items()}
    except (ValueError, AttributeError) as error:
        raise BrokenFrame("no list of layers") from error


def confinement(place: Path) -> Layers:
    """Layer → "" when this machine has it, else why not: for a look at the machine, with a directory that exists."""
    reader = ReaderProcess(directory.canonical(place), "none.db")
    reader.end()
    return reader.layers


class HostileFile:
    """Usable from any thread; one request at a time."""

    def __init__(self, path: Path, on_start: Callable[[Layers], None] = lambda _: None, names: int = 1) -> None:
        """`names`: how many hard links the file may have; one more than ours could be another program's."""
        self._names = names
        self._path = path
        self._directory = directory.canonical(path.parent)
        self._on_start = on_start
        self._lock = threading.Lock()
        self._reader: ReaderProcess | None = None
        self._started_s = -BETWEEN_STARTS_S
        self._generation = 0  #: how often a reader was started: each serves one file
        self._trouble = Trouble(self._directory, path.name)

    @property
    def trouble(self) -> str:
        """Why the file cannot be served, since the last try; empty when it can."""
        return self._trouble.reason

    def ask(self, request: bytes, *, generation: int | None = None, patience_s: float = -1) -> tuple[int, bytes] | None:
        """(generation of the file, answer), None while there is no file.

        `generation`: only of that file. `patience_s`: how long to wait for another's request; for ever, if negative.

        Raises:
            Replaced: the file, or the rows, are not those of `generation` any more.
            Unavailable: locked, unsafe, damaged, or the reader did not answer.
        """
        if not self._lock.acquire(timeout=patience_s):
            raise Unavailable(f"{self._path}: another request is on its way")
        try:
            self._trouble.raise_if_waiting()
            with self._troubles():
                return self._answer(request, generation)
        finally:
            self._lock.release()

    def broken(self, reason: BrokenFrame) -> Unavailable:
        """The answer made no sense: the reader is not to be talked to any more."""
        with self._lock:
            return self._give_up(f"the reader answers nonsense ({wire.printable(str(reason))})")

    def close(self) -> None:
        with self._lock:
            self._end()

    @contextmanager
    def _troubles(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            raise self._give_up(f"no answer within {REQUEST_S:.0f} s; the reader") from None
        except (EOFError, ConnectionError):
            raise self._give_up("the reader") from None
        except BrokenFrame as reason:
            raise self._give_up(f"the reader answers nonsense ({reason})") from reason
        except OSError as error:
            raise self._give_up(error.strerror or str(error)) from error

    def _answer(self, request: bytes, generation: int | None) -> tuple[int, bytes] | None:
        for _ in range(3):
            if (reader := self._current()) is None:
                break
            if generation not in (None, self._generation):
                raise Replaced(f"{self._path} is not the file any more that the rows were read from")
            kind, answer = reader.ask(request, REQUEST_S)
            if kind == Answer.DONE:
                self._trouble.over()
                return self._generation, answer
            self._raise_if_refused(kind, answer)
            if kind == Answer.ABSENT:
                break
            if generation is not None:
                raise Replaced(f"{self._path} is another file, or its rows have changed since they were read")
            self._end()
        if generation is not None:
            raise Replaced(f"{self._path} is gone")
        self._trouble.over()
        return None

    def _raise_if_refused(self, kind: Answer, answer: bytes) -> None:
        if kind == Answer.LOCKED:
            raise Unavailable(f"{self._path}: database is locked")
        if kind == Answer.TROUBLE:
            raise self._give_up(wire.printable(answer.decode(errors="replace")), died=False)

    def _current(self) -> ReaderProcess | None:
        """The reader of the directory as it is now; none is started for a file that is not there."""
        try:
            place = directory.identity(self._directory)
            if self._reader is None:
                os.lstat(self._directory / self._path.name)
        except FileNotFoundError:
            self._end()
            return None
        if self._reader is not None and self._reader.place != place:
            self._end()
        if self._reader is None:
            self._start()
        return self._reader

    def _start(self) -> None:
        time.sleep(max(0.0, self._started_s + BETWEEN_STARTS_S - time.monotonic()))
        self._started_s = time.monotonic()
        self._generation += 1
        self._trouble.look()
        self._reader = ReaderProcess(self._directory, self._path.name, self._names)
        self._on_start(self._reader.layers)

    def _end(self) -> None:
        if self._reader is not None:
            self._reader.end()
        self._reader = None

    def _give_up(self, reason: str, died: bool = True) -> Unavailable:
        how = self._reader.kill() if self._reader is not None else ""
        self._reader = None
        self._trouble.begin(f"{self._path}: {reason} {how}".rstrip() if died else f"{self._path}: {reason}")
        return Unavailable(self._trouble.reason)


class Trouble:
    """What is the matter with a file, and when to try it again."""

    def __init__(self, place: Path, name: str) -> None:
        self._place = place
        self._name = name
        self.reason = ""
        self._tries = 0
        self._tried_s = self._next_s = 0.0
        self._names: object = None
        self._written: object = None

    def begin(self, reason: str) -> None:
        self.reason = reason
        self._tried_s = time.monotonic()
        self._next_s = self._tried_s + RETRY.wait_s(self._tries)
        self._tries += 1

    def look(self) -> None:
        """Before a try: what is put there while it lasts is another file than the one that made the trouble."""
        self._names, self._written = self._seen()

    def over(self) -> None:
        self.reason, self._tries = "", 0

    def raise_if_waiting(self) -> None:
        """Raises Unavailable while the next try is not due: the file is the same, and so would be the answer."""
        if not self.reason or (now_s := time.monotonic()) >= self._next_s:
            return
        names, written = self._seen()
        if names != self._names:
            self._tries = 0
        elif written == self._written or now_s < self._tried_s + CHANGED_RETRY_S:
            raise Unavailable(self.reason)

    def _seen(self) -> tuple[object, object]:
        return directory.names(self._place, self._name)
