"""The promises of `ota.sources` and of what stands behind each, kept by the real ones and by what other tests use."""

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from teg.adapters.gateway_db import outbox
from teg.adapters.gateway_db.database import Database
from teg.adapters.gateway_db.telemetry_keys import ArchivedKeys
from teg.adapters.git_repository import GitRepository
from teg.adapters.mqtt_session import MqttSession, Server
from teg.adapters.package_store import PackagesOnDisk
from teg.domain.errors import Refused
from teg.domain.ota.assignment import Assignment, Source
from teg.domain.ota.checksums import checksum
from teg.domain.ota.job import Job, Phase
from teg.domain.ota.package_download import CHUNK_BYTES
from teg.domain.ota.rollout import TelemetryKeys
from teg.domain.ota.sources import (
    GitSource,
    PackageSource,
    RegistrySource,
    Repository,
    SoftwareSource,
    UnknownVersion,
)
from teg.domain.ports import Session
from teg.domain.server.reconnect import ConnectionPolicy
from teg.domain.server.wire import SOFTWARE_CHUNK_FILTER
from teg.domain.telemetry.validation import Record
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.controllers import RuntimeInMemory
from tests.support.ota_sources import ChunkServer, FakeRepository
from tests.support.ota_world import Effects, FakeClock, FakeEngine, FakeKeys, FakeSource
from tests.support.repositories import commit, git
from tests.support.running import wait_until

TS = 1_767_225_600_000
DATA = random.Random(1).randbytes(2 * CHUNK_BYTES + 100)


def never() -> bool:
    return False


# --- a repository -------------------------------------------------------------------------------------------------


@dataclass
class Clone:
    """`repository` knows v1; its remote v2, too, since the clone was made."""

    repository: Repository
    commits: dict[str, str]


def real_clone(path: Path) -> Clone:
    remote, local = path / "remote", path / "local"
    remote.mkdir()
    git(remote, "init", "-q", "-b", "main")
    commits = {"v1": commit(remote, {"Dockerfile": "FROM scratch\n"}, "v1")}
    git(path, "clone", "-q", str(remote), str(local))
    commits["v2"] = commit(remote, {"Dockerfile": "FROM scratch\n", "new": ""}, "v2")
    repository = GitRepository(local / ".git", local, "Dockerfile", path / "checkouts", signers=path / "signers")
    return Clone(repository, commits)


def fake_clone(path: Path) -> Clone:
    commits = {"v1": "a" * 40, "v2": "b" * 40}
    fake = FakeRepository(path / "checkout")
    fake.local["v1"], fake.remote["v2"], fake.unsigned = commits["v1"], commits["v2"], True
    return Clone(fake, commits)


@pytest.fixture(params=[real_clone, fake_clone], ids=lambda kind: str(kind.__name__))
def clone(request: pytest.FixtureRequest, tmp_path: Path) -> Clone:
    made: Clone = request.param(tmp_path)
    return made


def test_what_is_here_is_known_and_what_is_not_comes_with_a_fetch(clone: Clone) -> None:
    assert clone.repository.commit_of("v1") == clone.commits["v1"]
    assert clone.repository.commit_of("v2") is None
    clone.repository.fetch("v2")
    assert clone.repository.commit_of("v2") == clone.commits["v2"]
    assert clone.repository.commit_of("v1") == clone.commits["v1"]


def test_what_the_remote_does_not_know_is_refused(clone: Clone) -> None:
    with pytest.raises(UnknownVersion):
        clone.repository.fetch("v3")


def test_a_commit_is_laid_out_to_be_built_also_twice_until_it_is_cleared(clone: Clone) -> None:
    for _ in range(2):
        checkout = clone.repository.check_out(clone.commits["v1"])
        assert checkout.context.is_dir() and checkout.dockerfile == "Dockerfile"
    clone.repository.clear()
    assert not checkout.context.exists()
    clone.repository.clear()


def test_nobody_signed_it(clone: Clone) -> None:
    with pytest.raises(Refused):
        clone.repository.verify_signature("v1", clone.commits["v1"])


# --- a server that hands out a package ------------------------------------------------------------------------


@contextmanager
def stand_in() -> Iterator[Session]:
    with ThingsBoard() as server:
        server.add_device("pi", token="T1").assign_software("ctl", "v2", DATA)
        session = MqttSession(
            Server(server.host, server.port, None), lambda: "T1", lambda *_: None, lambda: None, ConnectionPolicy(), 30
        )
        session.start()
        try:
            wait_until(lambda: session.connected, 15, "connected")
            yield session
        finally:
            session.stop()


@contextmanager
def in_memory() -> Iterator[Session]:
    yield ChunkServer(DATA)


@pytest.mark.parametrize("kind", [stand_in, in_memory])
def test_a_package_comes_in_chunks_and_ends_with_nothing(kind: Callable[[], AbstractContextManager[Session]]) -> None:
    with kind() as session:
        session.subscribe(SOFTWARE_CHUNK_FILTER)

        def chunk(number: int) -> bytes:
            question, answer = (f"v2/sw/{word}/7/chunk/{number}" for word in ("request", "response"))
            return session.request(question, str(CHUNK_BYTES).encode(), answer)

        assert b"".join(map(chunk, range(3))) == DATA
        assert chunk(1) == DATA[CHUNK_BYTES : 2 * CHUNK_BYTES], "any of them, and again"
        assert chunk(3) == b""


# --- a source -----------------------------------------------------------------------------------------------------


@dataclass
class Obtained:
    source: SoftwareSource
    job: Job
    has_image: Callable[[str], bool]


def job(source: Source, **more: Any) -> Job:
    assignment = Assignment(version="v2", title="ctl", source=source, **more)
    return Job(serial=1, assignment=assignment, phase=Phase.FETCHING)


def from_git(path: Path) -> Obtained:
    runtime, repository = RuntimeInMemory(), FakeRepository(path / "checkout")
    repository.remote["v2"] = "b" * 40
    return Obtained(GitSource(repository, runtime, False), job(Source.GIT), runtime.has_image)


def from_a_registry(_: Path) -> Obtained:
    runtime = RuntimeInMemory()
    return Obtained(RegistrySource(runtime), job(Source.REGISTRY, reference="registry.example/ctl"), runtime.has_image)


def from_a_package(path: Path) -> Obtained:
    runtime = RuntimeInMemory()
    source = PackageSource(ChunkServer(DATA), PackagesOnDisk(path / "packages"), runtime)
    assigned = job(Source.PACKAGE, size=len(DATA), checksum=checksum("SHA256", [DATA]), algorithm="SHA256")
    return Obtained(source, assigned, runtime.has_image)


def of_updates(_: Path) -> Obtained:
    engine = FakeEngine(FakeClock(), Effects())
    return Obtained(FakeSource(engine), job(Source.GIT), engine.has_image)


@pytest.fixture(params=[from_git, from_a_registry, from_a_package, of_updates], ids=lambda kind: str(kind.__name__))
def obtained(request: pytest.FixtureRequest, tmp_path: Path) -> Obtained:
    made: Obtained = request.param(tmp_path)
    return made


def test_after_three_steps_the_image_is_there_and_each_may_be_done_twice(obtained: Obtained) -> None:
    source = obtained.source
    assert not obtained.has_image("v2")
    for _ in range(2):
        fetched = source.fetch(obtained.job, never)
    assert (fetched.version, fetched.phase) == ("v2", Phase.FETCHING), "only the commit is new"
    assert bool(fetched.commit) == (fetched.assignment.source is Source.GIT)
    for _ in range(2):
        source.verify(fetched)
    for _ in range(2):
        source.install(fetched, never)
    assert obtained.has_image("v2")


def test_nothing_is_held_after_a_clear_which_may_come_at_any_time(obtained: Obtained) -> None:
    obtained.source.clear()
    obtained.source.fetch(obtained.job, never)
    assert obtained.source.held_bytes(obtained.job) >= 0
    for _ in range(2):
        obtained.source.clear()
        assert obtained.source.held_bytes(obtained.job) == 0


# --- what a version sends -------------------------------------------------------------------------------------------


@contextmanager
def in_the_archive(path: Path) -> Iterator[TelemetryKeys]:
    """For five milliseconds one key, then another."""
    database = Database(path / "gateway.db")
    database.open(outbox.SCHEMA)
    texts = [f'{{"ts":{TS + n},"values":{{"{"old" if n < 5 else "new"}":1}}}}' for n in range(10)]
    rows = [Record(n + 1, TS + n, 1, text, None, False) for n, text in enumerate(texts)]
    outbox.RecordTable(database).store(rows, [], None)
    yield ArchivedKeys(database)
    database.close()


@contextmanager
def in_the_fake(_: Path) -> Iterator[TelemetryKeys]:
    keys = FakeKeys(["old"])
    keys.later, keys.from_ms = ["new"], TS + 5
    yield keys


@pytest.mark.parametrize("kind", [in_the_archive, in_the_fake])
@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [(0, 5, ["old"]), (5, 10, ["new"]), (4, 6, ["new", "old"]), (4, 5, ["old"]), (5, 5, []), (6, 5, [])],
)
def test_keys_are_those_of_the_span_whose_end_does_not_count(
    kind: Callable[[Path], AbstractContextManager[TelemetryKeys]],
    tmp_path: Path,
    start: int,
    end: int,
    expected: list[str],
) -> None:
    with kind(tmp_path) as keys:
        assert sorted(keys.keys_between(TS + start, TS + end)) == expected
