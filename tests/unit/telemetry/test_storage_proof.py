"""The proof by two watermarks, against a server that stores late, forgets, keeps nothing, or was set back."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from teg.domain.errors import NotConnected, Unavailable
from teg.domain.telemetry.storage_proof import (
    BYTES,
    FIRST_S,
    MESSAGES,
    NEVER_KEPT_S,
    NO_LONGER_KEPT_S,
    SHORTEST_S,
    WATERMARK,
    StorageProof,
    Watermark,
)
from tests.support.links import FakeClock
from tests.support.outboxes import TS, Archive


class LateServer:
    """Session, attributes and database of a server in one: a queue of client attributes in front of what is stored."""

    def __init__(self) -> None:
        self.connected, self.epoch = True, 1
        self.queue: list[str] = []
        self.stored: str | None = None
        self.late = False
        self.keeps = self.answers = True
        self.asked = 0

    def deliver(self, topic: str, payload: bytes, timeout_s: float = 30.0) -> None:
        if not self.connected:
            raise NotConnected("gone")
        if self.keeps:
            self.queue.append(orjson.loads(payload)[WATERMARK])
        if not self.late:
            self.store()

    def store(self) -> None:
        while self.queue:
            self.stored = self.queue.pop(0)

    def crash(self) -> None:
        self.queue.clear()
        self.epoch += 1

    def request_attributes(
        self, client_keys: Sequence[str] = (), shared_keys: Sequence[str] = ()
    ) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        self.asked += 1
        if not self.answers:
            raise Unavailable("no answer")
        return ({} if self.stored is None else {WATERMARK: self.stored}), {}


class Publisher:
    begun_epoch = 1
    acknowledged_bytes = acknowledged_publishes = 0

    def acknowledge(self, size: int = BYTES, publishes: int = 1) -> None:
        self.acknowledged_bytes += size
        self.acknowledged_publishes += publishes


class World:
    def __init__(self, path: Path) -> None:
        self.archive, self.server, self.clock, self.publisher = Archive(path), LateServer(), FakeClock(), Publisher()
        self.sent_again = self.told_again = 0
        self.counts_messages = False
        self.next_id = 1
        self.new_process()

    def new_process(self) -> None:
        self.proof = StorageProof(
            self.archive.unproven,
            self.server,  # type: ignore[arg-type]
            self.server,
            self.publisher,
            self.clock,
            lambda _: None,
            self._count("sent_again"),
            self._count("told_again"),
            lambda: self.counts_messages,
        )

    def _count(self, name: str) -> Callable[[], None]:
        return lambda: setattr(self, name, getattr(self, name) + 1)

    def acknowledge(self, rows: int = 10, size: int = BYTES) -> None:
        ids = range(self.next_id, self.next_id + rows)
        self.archive.store(*ids)
        self.archive.deliver(*ids)
        self.next_id += rows
        self.publisher.acknowledge(size)

    def tick(self, times: int = 1, seconds: float = SHORTEST_S) -> None:
        for _ in range(times):
            self.clock.s += seconds
            if self.proof.due:
                self.proof.advance()

    def reconnect(self) -> None:
        self.server.connected = True
        self.archive.table.connection_ended()
        self.publisher.begun_epoch = self.server.epoch

    @property
    def stored(self) -> int:
        return int(self.archive.counts()["stored"])

    @property
    def unproven(self) -> int:
        return int(self.archive.counts()["acknowledged"])


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.archive.database.close()


def test_a_server_that_stores_at_once_is_proven_with_one_look(world: World) -> None:
    world.acknowledge(10)
    world.tick(2)
    assert (world.stored, world.unproven) == (10, 0)


def test_what_is_acknowledged_after_the_first_watermark_is_not_proven_by_the_second(world: World) -> None:
    world.server.late = True
    world.acknowledge(10)
    world.tick(2)  # the first watermark is on its way
    world.acknowledge(5)
    world.server.store()
    world.tick()  # it is back; the second one goes
    assert world.stored == 0
    world.acknowledge(3)
    world.server.store()
    world.tick()
    assert (world.stored, world.unproven) == (10, 8)


def test_what_came_while_a_proof_was_made_is_proven_by_the_next_without_anything_new(world: World) -> None:
    world.server.late = True
    world.acknowledge(10)
    world.tick(2)  # the first watermark is on its way
    world.acknowledge(5)
    world.server.late = False
    world.server.store()
    world.tick(4)
    assert (world.stored, world.unproven) == (15, 0)


def test_one_watermark_proves_nothing(world: World) -> None:
    """Inside a pack the order is free: the watermark may be stored before what was acknowledged before it."""
    world.server.late = True
    world.acknowledge(10)
    world.tick(2)
    world.server.store()
    world.tick()
    world.tick(50)
    assert world.stored == 0


def test_a_crash_between_the_watermarks_sends_everything_again(world: World) -> None:
    world.acknowledge(10)
    world.tick(2)
    world.server.late = True
    world.acknowledge(10)
    world.tick()
    world.server.store()
    world.tick()  # the second watermark is in the queue
    world.server.crash()
    world.reconnect()
    assert len(world.archive.pending()) == 10
    world.server.late = False
    world.tick(5)
    assert world.stored == 10


@pytest.mark.parametrize("when", ["before", "between"])
def test_a_proof_does_not_go_on_in_another_connection(world: World, when: str) -> None:
    """The second watermark would be read back, and what the first stood for is forgotten."""
    world.server.late = True
    world.acknowledge(10)
    world.tick(2)
    if when == "between":
        world.server.store()
        world.tick()
    world.server.crash()
    world.reconnect()
    world.server.late = False
    world.tick(5)
    assert world.stored == 0


def test_nothing_is_asked_before_the_publisher_has_dealt_with_the_last_connection(world: World) -> None:
    world.server.epoch = 2
    world.acknowledge()
    world.tick(5)
    assert world.server.asked == 0


def test_a_watermark_that_was_there_before_is_never_taken_for_a_new_one(world: World) -> None:
    world.acknowledge(10)
    world.server.keeps = False
    world.server.stored = Watermark.fresh(world.archive.unproven.state().archive, 1).text
    world.tick(3)
    assert world.stored == 0


# --- the cost


def test_a_drain_is_proven_every_few_seconds_and_a_trickle_rarely(world: World) -> None:
    world.tick()
    proofs = 0
    for _ in range(3600):
        world.acknowledge(1, size=100)
        before = world.stored
        world.tick(1, seconds=1.0)
        proofs += world.stored > before
    assert 20 <= proofs <= 40, "at one record a second"
    asked = world.server.asked
    assert asked * 210 <= 0.05 * 3600 * 150, "at most 5 % more bytes"


def test_in_a_young_connection_a_trickle_is_proven_sooner(world: World) -> None:
    """A bad link ends connections every minute: what is unproven then goes twice."""
    world.tick()
    world.acknowledge(1, size=100)
    world.tick(1, FIRST_S + 1)
    assert world.stored == 1


def test_on_a_server_that_counts_messages_a_proof_waits_for_a_hundred(world: World) -> None:
    world.counts_messages = True
    world.archive.unproven.keeps_watermarks(True)
    world.tick()
    for _ in range(MESSAGES - 1):
        world.acknowledge(1)
    world.tick()
    assert world.stored == 0
    world.acknowledge(1)
    world.tick()
    assert world.stored == MESSAGES


def test_an_idle_gateway_asks_nothing(world: World) -> None:
    world.acknowledge()
    world.tick(2)
    asked = world.server.asked
    world.tick(1000)
    assert world.server.asked == asked


# --- a server that keeps no client attributes


@pytest.mark.parametrize("answers", [True, False])
def test_a_server_without_client_attributes_is_said_once_and_costs_nothing(
    world: World, caplog: pytest.LogCaptureFixture, answers: bool
) -> None:
    caplog.set_level(logging.WARNING)
    world.server.keeps, world.server.answers = False, answers
    world.acknowledge(10)
    for _ in range(5):  # cuts before the server's habit is known
        world.tick(2)
        world.server.crash()
        world.reconnect()
        assert world.archive.pending() == []
    world.tick(int(NEVER_KEPT_S / SHORTEST_S) + 2)
    assert world.archive.unproven.state().keeps is False
    world.acknowledge(10)
    for _ in range(20):
        world.server.crash()
        world.reconnect()
        world.tick(5)
    assert world.archive.pending() == []
    assert caplog.text.count("does not give back the client attribute") == 1
    world.new_process()
    world.tick(5)
    assert caplog.text.count("does not give back the client attribute") == 1


def test_a_crash_before_the_servers_habit_is_known_loses_nothing(world: World) -> None:
    world.server.late = True
    world.acknowledge(10)
    world.server.crash()
    world.reconnect()
    assert world.archive.pending() == []
    world.server.late = False
    world.tick(2)
    assert world.sent_again == 1
    assert len(world.archive.pending()) == 10


def test_a_server_that_begins_to_keep_them_is_noticed_at_the_next_connection(world: World) -> None:
    world.archive.unproven.keeps_watermarks(False)
    world.server.stored = Watermark.fresh(world.archive.unproven.state().archive, 1).text
    world.acknowledge(10)
    world.tick(2)
    world.acknowledge(10)
    world.tick(2)
    assert world.stored == 10


def test_a_slow_server_that_was_known_to_keep_them_is_given_time(world: World) -> None:
    world.archive.unproven.keeps_watermarks(True)
    world.server.late = True
    world.acknowledge(10)
    world.tick(int(NO_LONGER_KEPT_S / SHORTEST_S) - 5)
    assert world.archive.unproven.state().keeps
    world.server.store()
    world.tick()
    world.server.store()
    world.tick()
    assert world.stored == 10


# --- a server that was set back


def test_a_restored_server_is_recognised_and_the_range_is_offered(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.acknowledge(10)
    world.tick(2)
    backup = world.server.stored
    world.acknowledge(10)
    world.tick(2)
    assert world.stored == 20
    world.server.crash()
    world.server.stored = backup
    world.reconnect()
    world.tick()
    assert '"start_timestamp_ms": ' in caplog.text
    assert world.told_again == 1
    missing = world.archive.unproven.state().missing
    assert missing is not None
    assert missing.first_ms <= TS + 11
    assert missing.last_ms == TS + 20
    assert world.archive.pending() == []
    world.tick(10)
    assert world.archive.unproven.state().missing == missing, "the offer stays until it is taken up"


def test_a_device_that_was_created_anew_has_no_watermark(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.acknowledge(10)
    world.tick(2)
    world.server.crash()
    world.server.stored = None
    world.reconnect()
    world.tick()
    assert "no watermark where it had stored one" in caplog.text
    missing = world.archive.unproven.state().missing
    assert missing is not None
    assert missing.rows == 10


def test_an_ordinary_reconnect_offers_nothing(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    for _ in range(10):
        world.acknowledge(10)
        world.tick(3)
        world.server.crash()
        world.reconnect()
    assert caplog.text == ""
    assert world.told_again == 0


def test_the_watermark_of_another_archive_is_another_user_and_no_proof(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.acknowledge(10)
    world.tick(2)
    world.server.crash()
    world.server.stored = "ffffffffffff.999.abcdef"
    world.reconnect()
    world.tick()
    assert "another gateway has used this access token" in caplog.text
    assert world.archive.unproven.state().missing is None


@pytest.mark.parametrize("text", [None, 7, "", "x", "a.b.c", "a.-1.c", "a.²,c", {"a": 1}, True])
def test_what_is_no_watermark_is_none(text: Any) -> None:
    assert Watermark.parse(text) is None
