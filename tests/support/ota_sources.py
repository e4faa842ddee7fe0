"""Where versions come from, in memory: a repository, and a server that hands out a package in chunks."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from teg.domain.errors import Refused
from teg.domain.ota.sources import Checkout, UnknownVersion


class FakeRepository:
    """Knows `local` commits; `remote` ones after a fetch."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.local: dict[str, str] = {}
        self.remote: dict[str, str] = {}
        self.calls: list[str] = []
        self.unsigned = False

    def commit_of(self, version: str) -> str | None:
        return self.local.get(version)

    def fetch(self, version: str) -> None:
        self.calls.append(f"fetch {version}")
        if version not in self.local | self.remote:
            raise UnknownVersion(f"no {version}")
        self.local |= self.remote

    def verify_signature(self, version: str, commit: str) -> None:
        self.calls.append(f"verify {version} {commit[:4]}")
        if self.unsigned:
            raise Refused("no good signature")

    def check_out(self, commit: str) -> Checkout:
        self.calls.append(f"check out {commit[:4]}")
        self.directory.mkdir(exist_ok=True)
        (self.directory / "behaviour").write_text("runs")
        return Checkout(self.directory, "Dockerfile")

    def clear(self) -> None:
        self.calls.append("clear")
        if self.directory.exists():
            shutil.rmtree(self.directory)


class ChunkServer:
    """The `Session` as far as a download uses it; `spoil(number, chunk)` may change or refuse any answer."""

    connected, epoch = True, 1

    def __init__(self, data: bytes, spoil: Callable[[int, bytes], bytes] = lambda _, chunk: chunk) -> None:
        self.data = data
        self.spoil = spoil
        self.asked: list[tuple[int, int]] = []
        self.filters: list[str] = []

    def publish(self, topic: str, payload: bytes, on_done: Callable[[bool], None]) -> None:
        raise AssertionError("a download publishes only requests")

    def deliver(self, topic: str, payload: bytes, timeout_s: float = 30.0) -> None:
        raise AssertionError("a download publishes only requests")

    def subscribe(self, topic_filter: str) -> None:
        self.filters.append(topic_filter)

    def request(self, topic: str, payload: bytes, answer_topic: str, timeout_s: float = 10.0) -> bytes:
        match = re.fullmatch(r"v2/sw/request/(\d+)/chunk/(\d+)", topic)
        assert match
        assert answer_topic == f"v2/sw/response/{match[1]}/chunk/{match[2]}"
        number, size = int(match[2]), int(payload)
        self.asked.append((int(match[1]), number))
        return self.spoil(number, self.data[number * size : (number + 1) * size])
