"""A package in chunks: complete and verified on disk, resumed where it ended, refused with a reason otherwise."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from teg.adapters.package_store import PackageOnDisk, PackagesOnDisk
from teg.domain.errors import NotConnected, Refused, Unavailable
from teg.domain.ota.assignment import Assignment, Source
from teg.domain.ota.checksums import ALGORITHMS, checksum
from teg.domain.ota.package_download import (
    CHUNK_BYTES,
    RESERVE_BYTES,
    CalledOff,
    check_chunk,
    download,
    require_space,
    verify,
)
from teg.domain.server.wire import SOFTWARE_CHUNK_FILTER
from tests.support.ota_sources import ChunkServer


def assigned(data: bytes, algorithm: str = "SHA256") -> Assignment:
    return Assignment(
        version="v2",
        title="ctl",
        source=Source.PACKAGE,
        size=len(data),
        checksum=checksum(algorithm, [data]),
        algorithm=algorithm,
    )


DATA = random.Random(1).randbytes(3 * CHUNK_BYTES + 100)


@pytest.fixture
def store(tmp_path: Path) -> PackagesOnDisk:
    return PackagesOnDisk(tmp_path / "packages")


@pytest.fixture
def file(store: PackagesOnDisk) -> PackageOnDisk:
    return store.open("one")


def never() -> bool:
    return False


@pytest.mark.parametrize("size", [1, 100, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES, len(DATA)])
def test_a_package_arrives_whole(file: PackageOnDisk, size: int) -> None:
    data = DATA[:size]
    server = ChunkServer(data)
    download(server, file, assigned(data), 7, never)
    assert file.path.read_bytes() == data
    verify(file, assigned(data))
    assert server.filters == [SOFTWARE_CHUNK_FILTER]
    assert {request for request, _ in server.asked} == {7}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_accepts_the_package_and_notices_one_changed_byte(file: PackageOnDisk, algorithm: str) -> None:
    file.append(DATA)
    verify(file, assigned(DATA, algorithm))
    file.cut(0)
    file.append(DATA[:-1] + bytes([DATA[-1] ^ 1]))
    with pytest.raises(Refused, match=f"corrupt: its {algorithm}"):
        verify(file, assigned(DATA, algorithm))


def test_an_interrupted_download_goes_on_where_it_ended(file: PackageOnDisk) -> None:
    def breaks(number: int, chunk: bytes) -> bytes:
        if number == 2:
            raise NotConnected("gone")
        return chunk

    with pytest.raises(NotConnected):
        download(ChunkServer(DATA, breaks), file, assigned(DATA), 1, never)
    assert file.held_bytes() == 2 * CHUNK_BYTES
    server = ChunkServer(DATA)
    download(server, file, assigned(DATA), 2, never)
    assert server.asked == [(2, 2), (2, 3)]
    verify(file, assigned(DATA))


def test_a_torn_last_write_is_fetched_again(file: PackageOnDisk) -> None:
    file.append(DATA[: CHUNK_BYTES + 17])
    server = ChunkServer(DATA)
    download(server, file, assigned(DATA), 1, never)
    assert server.asked[0] == (1, 1)
    verify(file, assigned(DATA))


def test_a_file_that_is_already_complete_is_not_fetched_again(file: PackageOnDisk) -> None:
    file.append(DATA)
    server = ChunkServer(DATA)
    download(server, file, assigned(DATA), 1, never)
    assert server.asked == []
    verify(file, assigned(DATA))


def test_a_file_that_is_too_long_is_cut(file: PackageOnDisk) -> None:
    file.append(DATA + b"more")
    download(ChunkServer(DATA), file, assigned(DATA), 1, never)
    verify(file, assigned(DATA))


@pytest.mark.parametrize("size", [len(DATA), 3 * CHUNK_BYTES])
def test_an_oversize_or_endless_package_is_refused(file: PackageOnDisk, size: int) -> None:
    endless = ChunkServer(b"", lambda number, _: bytes(CHUNK_BYTES))
    with pytest.raises(Refused, match="longer than sw_size"):
        download(endless, file, assigned(DATA[:size]), 1, never)
    assert file.held_bytes() <= size
    assert len(endless.asked) <= 4


def test_a_short_package_is_refused(file: PackageOnDisk) -> None:
    with pytest.raises(Refused, match="shorter than sw_size"):
        download(ChunkServer(DATA[: CHUNK_BYTES + 5]), file, assigned(DATA), 1, never)


def test_an_empty_chunk_may_be_a_lost_cache_and_can_pass(file: PackageOnDisk) -> None:
    with pytest.raises(Unavailable, match="and then nothing"):
        download(ChunkServer(DATA[: 2 * CHUNK_BYTES]), file, assigned(DATA), 1, never)
    assert file.held_bytes() == 2 * CHUNK_BYTES


def test_a_chunk_larger_than_asked_is_refused(file: PackageOnDisk) -> None:
    with pytest.raises(Refused, match="longer"):
        download(ChunkServer(DATA, lambda _, chunk: chunk + b"x"), file, assigned(DATA), 1, never)


def test_a_version_that_is_not_wanted_any_more_stops_at_the_next_chunk(file: PackageOnDisk) -> None:
    server = ChunkServer(DATA)
    with pytest.raises(CalledOff):
        download(server, file, assigned(DATA), 1, lambda: len(server.asked) >= 2)
    assert len(server.asked) == 2


def test_without_space_nothing_is_asked_for(file: PackageOnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PackageOnDisk, "free_bytes", lambda self: RESERVE_BYTES + 2 * len(DATA) - 1)
    server = ChunkServer(DATA)
    with pytest.raises(Unavailable, match="needs 64 MiB of disk"):
        download(server, file, assigned(DATA), 1, never)
    assert server.asked == []


def test_what_is_held_already_is_not_needed_again() -> None:
    assignment = assigned(DATA)
    require_space(assignment, len(DATA), RESERVE_BYTES + len(DATA))
    with pytest.raises(Unavailable):
        require_space(assignment, 0, RESERVE_BYTES + len(DATA))


@given(chunk=st.binary(max_size=40), held=st.integers(0, 30), more=st.integers(1, 30))
def test_a_chunk_is_accepted_only_with_the_expected_length(chunk: bytes, held: int, more: int) -> None:
    size = held + more
    try:
        check_chunk(chunk, held, size)
    except (Refused, Unavailable):
        assert len(chunk) != more
    else:
        assert len(chunk) == more


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(breaks=st.lists(st.integers(0, 4), max_size=6), size=st.integers(1, len(DATA)))
def test_any_interruptions_end_in_the_same_bytes(tmp_path: Path, breaks: list[int], size: int) -> None:
    data, pending = DATA[:size], list(breaks)

    def spoil(number: int, chunk: bytes) -> bytes:
        if number in pending:
            pending.remove(number)
            raise Unavailable("gone")
        return chunk

    store = PackagesOnDisk(tmp_path / "interrupted")
    store.clear()
    for request_id in range(len(breaks) + 1):
        try:
            download(ChunkServer(data, spoil), store.open("p"), assigned(data), request_id, never)
            break
        except Unavailable:
            continue
    verify(store.open("p"), assigned(data))


# --- the directory ----------------------------------------------------------------------------------------------


def test_the_store_holds_one_package_only(store: PackagesOnDisk) -> None:
    store.open("first").append(b"1")
    store.open("second").append(b"2")
    assert [path.name for path in (store.open("second").path.parent).iterdir()] == ["second.part"]
    store.clear()
    assert store.open("second").held_bytes() == 0


def test_nobody_else_can_read_a_package(file: PackageOnDisk) -> None:
    file.append(b"x")
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert file.path.parent.stat().st_mode & 0o777 == 0o700


def test_a_symbolic_link_is_not_followed(file: PackageOnDisk, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    file.path.symlink_to(target)
    with pytest.raises(Unavailable, match="cannot write"):
        file.append(b"x")
    assert target.read_bytes() == b"precious"


def test_a_full_disk_is_transient(file: PackageOnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("teg.adapters.package_store.os.write", full)
    with pytest.raises(Unavailable, match="No space left"):
        file.append(b"x")


def test_a_large_file_is_read_in_pieces(file: PackageOnDisk) -> None:
    file.append(bytes(3 << 20))
    pieces: Iterator[bytes] = file.pieces()
    assert max(len(piece) for piece in pieces) <= 1 << 20
