"""Packages over a real connection to the stand-in: whole or not at all, whatever the server does with the chunks."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from teg.adapters.mqtt_session import MqttSession, Server
from teg.adapters.package_store import PackagesOnDisk
from teg.domain.errors import Unavailable
from teg.domain.ota import package_download
from teg.domain.ota.assignment import Source
from teg.domain.ota.checksums import ALGORITHMS
from teg.domain.ota.package_download import CHUNK_BYTES
from teg.domain.ota.sources import PackageSource
from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.faults import Message, when
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.ota_world import World
from tests.support.running import wait_until

DATA = random.Random(7).randbytes(5 * CHUNK_BYTES + 1234)


class Rig:
    """A device in memory that downloads for real."""

    def __init__(self, directory: Path, server: ThingsBoard) -> None:
        self.server = server
        self.device: Device = server.add_device("pi", token="T")
        self.session = MqttSession(
            Server(server.host, server.port, None), lambda: "T", lambda topic, payload: None, lambda: None
        )
        self.packages = directory / "packages"
        self.world = World(directory)
        self.loaded: list[bytes] = []
        self._load = self.world.engine.load_archive
        self.world.engine.load_archive = self.load  # type: ignore[method-assign]
        source = PackageSource(self.session, PackagesOnDisk(self.packages), self.world.engine)
        self.world.sources = dict.fromkeys(Source, source)
        self.world.reboot_gateway()

    def load(self, version: str, path: Path) -> None:
        self.loaded.append(path.read_bytes())
        self._load(version, path)

    def update(self) -> None:
        """Until nothing is left to do; a lost connection comes back by itself."""
        self.world.update.wanted(self.device.shared_attributes)
        for _ in range(40):
            wait_until(lambda: self.session.connected, 20, "a connection")
            try:
                self.world.update.advance()
            except Unavailable:
                self.world.clock.pass_s(30)
            else:
                return
        raise AssertionError("the update never came to rest")

    def chunk_requests(self) -> list[int]:
        return [
            int(publish.topic.rsplit("/", 1)[1])
            for publish in self.device.publishes
            if publish.topic.startswith("v2/sw/request/")
        ]

    def left_over(self) -> list[Path]:
        return list(self.packages.iterdir()) if self.packages.exists() else []


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setattr(package_download, "CHUNK_TIMEOUT_S", 2.0)
    with ThingsBoard(packet_log=0) as server:
        rig = Rig(tmp_path, server)
        rig.session.start()
        yield rig
        rig.session.stop()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_package_with_any_checksum_of_the_server(rig: Rig, algorithm: str) -> None:
    rig.device.assign_software("ctl", "v2", DATA, algorithm)
    rig.update()
    assert rig.world.runs == "v2"
    assert rig.loaded == [DATA]
    assert rig.chunk_requests() == [0, 1, 2, 3, 4, 5]
    assert rig.left_over() == []


def bad_times(times: int, answer: Callable[[int, bytes], bytes | None]) -> Callable[[int, bytes], bytes | None]:
    """Give `answer` for chunk 3, `times` times."""
    left = [times]

    def alter(number: int, chunk: bytes) -> bytes | None:
        if number == 3 and left[0] > 0:
            left[0] -= 1
            return answer(number, chunk)
        return chunk

    return alter


@pytest.mark.parametrize(
    "answer", [lambda number, chunk: None, lambda number, chunk: b""], ids=["no answer", "the cache lost the file"]
)
def test_what_can_pass_is_resumed_where_it_stopped(rig: Rig, answer: Callable[[int, bytes], bytes | None]) -> None:
    rig.server.faults.ota_chunk = bad_times(1, answer)
    rig.device.assign_software("ctl", "v2", DATA)
    rig.update()
    assert rig.loaded == [DATA]
    assert rig.chunk_requests() == [0, 1, 2, 3, 3, 4, 5]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda number, chunk: None, "no answer"),
        (lambda number, chunk: b"", "and then nothing"),
        (lambda number, chunk: chunk[:-1], "shorter than sw_size"),
        (lambda number, chunk: chunk + b"x", "longer than sw_size"),
        (lambda number, chunk: bytes(len(chunk)), "the package is corrupt"),
        (lambda number, chunk: DATA[:CHUNK_BYTES], "the package is corrupt"),
    ],
    ids=["silent", "ends early", "short", "oversize", "other bytes", "another chunk"],
)
def test_a_package_that_is_not_right_never_reaches_the_engine(
    rig: Rig, answer: Callable[[int, bytes], bytes | None], words: str
) -> None:
    rig.server.faults.ota_chunk = bad_times(99, answer)
    rig.device.assign_software("ctl", "v2", DATA)
    rig.update()
    assert rig.world.runs == "v1"
    assert rig.world.last()["sw_state"] == "FAILED"
    assert words in rig.world.last()["sw_error"]
    assert rig.loaded == []
    assert rig.left_over() == []


def test_a_package_that_came_in_one_go_and_is_corrupt_is_not_fetched_again(rig: Rig) -> None:
    rig.device.assign_software("ctl", "v2", DATA, checksum="00" * 32)
    rig.update()
    assert rig.world.last()["sw_error"].startswith("the package is corrupt")
    assert rig.chunk_requests() == [0, 1, 2, 3, 4, 5]


def test_one_that_was_pieced_together_gets_a_second_chance(rig: Rig) -> None:
    """The first piece is damaged on the disk, as after a power cut."""
    rig.device.assign_software("ctl", "v2", DATA)
    attributes = rig.device.shared_attributes
    rig.packages.mkdir()
    part = rig.packages / f"SHA256-{attributes['sw_checksum']}-{len(DATA)}.part"
    part.write_bytes(bytes(2 * CHUNK_BYTES))
    rig.update()
    assert rig.loaded == [DATA]
    assert rig.chunk_requests() == [2, 3, 4, 5, 0, 1, 2, 3, 4, 5]


def test_an_endless_package_ends(rig: Rig) -> None:
    rig.server.faults.ota_chunk = lambda number, chunk: bytes(CHUNK_BYTES)
    rig.device.assign_software("ctl", "v2", DATA)
    rig.update()
    assert "longer than sw_size" in rig.world.last()["sw_error"]
    assert len(rig.chunk_requests()) == 6
    assert rig.left_over() == []


@pytest.mark.slow
def test_connections_that_end_again_and_again_only_cost_time(rig: Rig) -> None:
    left = {"2": 2, "4": 2}

    def strikes(publish: Message) -> bool:
        number = publish.topic.rpartition("/chunk/")[2]
        left[number] = left.get(number, 0) - 1
        return left[number] >= 0

    rig.server.faults.close_before_puback = when(strikes)
    rig.device.assign_software("ctl", "v2", DATA)
    rig.update()
    assert rig.loaded == [DATA]
    assert rig.chunk_requests().count(0) == 1


def test_a_package_the_server_does_not_have_is_given_up(rig: Rig) -> None:
    """The server answers NOT_FOUND and ends the session: three times, not for ever."""
    rig.device.assign_software("ctl", "v2", DATA)
    attributes = rig.device.shared_attributes
    rig.device.unassign_software()
    rig.device.set_shared(attributes)
    rig.update()
    assert rig.world.last()["sw_state"] == "FAILED"
    assert "given up after 3 attempts" in rig.world.last()["sw_error"]
    assert rig.chunk_requests() == [0, 0, 0]
    assert rig.left_over() == []


def test_a_package_larger_than_the_disk_is_not_begun(rig: Rig) -> None:
    rig.device.assign_software("ctl", "v2", DATA)
    rig.device.set_shared({"sw_size": 1 << 40})
    rig.update()
    assert "of disk" in rig.world.last()["sw_error"]
    assert rig.chunk_requests() == []
    assert rig.left_over() == []


def test_another_package_in_the_middle_wins(rig: Rig) -> None:
    other = DATA[::-1]

    def switch(number: int, chunk: bytes) -> bytes:
        if number == 2 and rig.device.shared_attributes["sw_version"] == "v2":
            rig.device.assign_software("ctl", "v3", other)
            rig.world.update.wanted(rig.device.shared_attributes)
        return chunk

    rig.device.assign_software("ctl", "v2", DATA)
    original = rig.session.request

    def request(topic: str, payload: bytes, answer_topic: str, timeout_s: float = 10.0) -> bytes:
        answer = original(topic, payload, answer_topic, timeout_s)
        return switch(int(topic.rsplit("/", 1)[1]), answer)

    rig.session.request = request  # type: ignore[method-assign]
    rig.update()
    assert rig.loaded == [other]
    assert rig.world.engine.starts == ["v1", "v3"]
    assert rig.left_over() == []
