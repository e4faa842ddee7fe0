"""The three sources: what each asks of Git, the engine and the server, and which failures can pass."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from teg.adapters.package_store import PackageOnDisk, PackagesOnDisk
from teg.domain.errors import Refused, Unavailable
from teg.domain.ota.assignment import Assignment, Source
from teg.domain.ota.checksums import checksum
from teg.domain.ota.job import Job, Phase
from teg.domain.ota.package_download import CalledOff
from teg.domain.ota.sources import (
    Corrupt,
    GitSource,
    PackageSource,
    RegistrySource,
    UnknownVersion,
    clear_quietly,
)
from tests.support.controllers import RuntimeInMemory
from tests.support.ota_sources import ChunkServer, FakeRepository

COMMIT = "c" * 40


def never() -> bool:
    return False


def a_job(source: Source = Source.GIT, commit: str = "", resumed: bool = False, **more: Any) -> Job:
    assignment = Assignment(version="v2", title="ctl", source=source, **more)
    return Job(serial=1, assignment=assignment, phase=Phase.FETCHING, commit=commit, resumed=resumed)


# --- Git ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path: Path) -> FakeRepository:
    return FakeRepository(tmp_path / "checkout")


@pytest.fixture
def runtime() -> RuntimeInMemory:
    return RuntimeInMemory()


def test_what_resolves_locally_is_not_fetched(repository: FakeRepository, runtime: RuntimeInMemory) -> None:
    repository.local["v2"] = COMMIT
    assert GitSource(repository, runtime, False).fetch(a_job(), never).commit == COMMIT
    assert repository.calls == []


def test_what_does_not_is_fetched_once(repository: FakeRepository, runtime: RuntimeInMemory) -> None:
    repository.remote["v2"] = COMMIT
    assert GitSource(repository, runtime, False).fetch(a_job(), never).commit == COMMIT
    assert repository.calls == ["fetch v2"]


def test_what_nobody_knows_is_refused(repository: FakeRepository, runtime: RuntimeInMemory) -> None:
    with pytest.raises(UnknownVersion):
        GitSource(repository, runtime, False).fetch(a_job(), never)


def test_a_tag_that_was_moved_is_refused(repository: FakeRepository, runtime: RuntimeInMemory) -> None:
    repository.local["v2"] = "d" * 40
    with pytest.raises(Refused, match="publish the change under a new version"):
        GitSource(repository, runtime, False).fetch(a_job(commit=COMMIT), never)


def test_signatures_are_asked_for_only_when_required(repository: FakeRepository, runtime: RuntimeInMemory) -> None:
    repository.unsigned = True
    GitSource(repository, runtime, False).verify(a_job(commit=COMMIT))
    assert repository.calls == []
    with pytest.raises(Refused):
        GitSource(repository, runtime, True).verify(a_job(commit=COMMIT))


def test_the_pinned_commit_is_what_is_built(repository: FakeRepository, runtime: RuntimeInMemory) -> None:
    GitSource(repository, runtime, False).install(a_job(commit=COMMIT), never)
    assert repository.calls == ["check out cccc"]
    assert runtime.has_image("v2")


def test_a_failed_build_can_pass(repository: FakeRepository, runtime: RuntimeInMemory) -> None:
    def build(version: str, context: Path, dockerfile: str, cancelled: Callable[[], bool]) -> None:
        raise Refused("step 3: pip install: no answer")

    runtime.build = build  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="pip install"):
        GitSource(repository, runtime, False).install(a_job(commit=COMMIT), never)


def test_a_build_that_was_cancelled_is_called_off(repository: FakeRepository, runtime: RuntimeInMemory) -> None:
    with pytest.raises(CalledOff):
        GitSource(repository, runtime, False).install(a_job(commit=COMMIT), lambda: True)


def test_without_a_repository_the_reason_says_what_to_set(runtime: RuntimeInMemory) -> None:
    source = GitSource(None, runtime, False)
    with pytest.raises(Refused, match="TEG_CONTROLLER_GIT_PATH is not set"):
        source.fetch(a_job(), never)
    source.clear()


# --- registry -----------------------------------------------------------------------------------------------------


def test_an_image_is_pulled_as_the_version(runtime: RuntimeInMemory) -> None:
    source = RegistrySource(runtime)
    job = a_job(Source.REGISTRY, reference="registry.example/ctl:v2")
    assert source.fetch(job, never) == job
    source.verify(job)
    source.install(job, never)
    assert runtime.has_image("v2")


def test_a_pull_that_was_cancelled_is_called_off_and_one_that_was_refused_is_refused(runtime: RuntimeInMemory) -> None:
    def pull(version: str, reference: str, cancelled: Callable[[], bool] = never) -> None:
        raise Refused("manifest unknown")

    runtime.pull = pull  # type: ignore[method-assign]
    with pytest.raises(CalledOff):
        RegistrySource(runtime).fetch(a_job(Source.REGISTRY), lambda: True)
    with pytest.raises(Refused, match="manifest unknown"):
        RegistrySource(runtime).fetch(a_job(Source.REGISTRY), never)


def test_an_image_that_vanished_is_fetched_again(runtime: RuntimeInMemory) -> None:
    with pytest.raises(Unavailable):
        RegistrySource(runtime).verify(a_job(Source.REGISTRY))


# --- package ------------------------------------------------------------------------------------------------------

DATA = b"0123456789" * 10


class NotedStore(PackagesOnDisk):
    """The real store, and the names that were asked for."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.directory = directory
        self.names: list[str] = []

    def open(self, name: str) -> PackageOnDisk:
        self.names.append(name)
        return super().open(name)

    def hold(self, job: Job, data: bytes) -> None:
        super().open(f"CRC32-{job.assignment.checksum}-{job.assignment.size}").append(data)

    def is_empty(self) -> bool:
        return not any(path.stat().st_size for path in self.directory.glob("*"))


def package_job(resumed: bool = False, data: bytes = DATA) -> Job:
    return a_job(Source.PACKAGE, resumed=resumed, size=len(data), checksum=checksum("CRC32", [data]), algorithm="CRC32")


@pytest.fixture
def store(tmp_path: Path) -> NotedStore:
    return NotedStore(tmp_path / "packages")


def test_a_package_is_fetched_verified_and_loaded(store: NotedStore, runtime: RuntimeInMemory) -> None:
    source = PackageSource(ChunkServer(DATA), store, runtime)
    job = package_job()
    source.fetch(job, never)
    source.verify(job)
    source.install(job, never)
    assert runtime.has_image("v2")
    assert source.held_bytes(job) == len(DATA)
    assert set(store.names) == {f"CRC32-{job.assignment.checksum}-100"}


def test_every_download_has_a_request_of_its_own(store: NotedStore, runtime: RuntimeInMemory) -> None:
    session = ChunkServer(DATA)
    source = PackageSource(session, store, runtime)
    for _ in range(2):
        store.clear()
        source.fetch(package_job(), never)
    assert len({request for request, _ in session.asked}) == 2


def test_a_refused_package_leaves_nothing_behind(store: NotedStore, runtime: RuntimeInMemory) -> None:
    source = PackageSource(ChunkServer(DATA + b"x"), store, runtime)
    with pytest.raises(Refused, match="longer"):
        source.fetch(package_job(), never)
    assert store.is_empty()


def test_a_called_off_package_is_cleared_by_whoever_calls_it_off(store: NotedStore, runtime: RuntimeInMemory) -> None:
    with pytest.raises(CalledOff):
        PackageSource(ChunkServer(DATA), store, runtime).fetch(package_job(), lambda: True)


def test_a_corrupt_package_is_removed_and_refused(store: NotedStore, runtime: RuntimeInMemory) -> None:
    store.hold(package_job(), DATA[:-1] + b"x")
    with pytest.raises(Refused, match="corrupt"):
        PackageSource(ChunkServer(DATA), store, runtime).verify(package_job())
    assert store.is_empty()


def test_a_pieced_together_package_gets_a_second_chance(store: NotedStore, runtime: RuntimeInMemory) -> None:
    store.hold(package_job(), DATA[:-1] + b"x")
    with pytest.raises(Corrupt):
        PackageSource(ChunkServer(DATA), store, runtime).verify(package_job(resumed=True))
    assert store.is_empty()


def test_a_package_that_vanished_before_it_was_loaded_is_fetched_again(
    store: NotedStore, runtime: RuntimeInMemory
) -> None:
    with pytest.raises(Corrupt, match="removed from the disk"):
        PackageSource(ChunkServer(DATA), store, runtime).install(package_job(), never)
    assert not runtime.has_image("v2")


def test_temporary_files_that_cannot_be_removed_stop_nothing(runtime: RuntimeInMemory, tmp_path: Path) -> None:
    class Stuck(NotedStore):
        def clear(self) -> None:
            raise Unavailable("read-only file system")

    clear_quietly(PackageSource(ChunkServer(DATA), Stuck(tmp_path), runtime))
