"""From a row in the inbox to the server through the tasks, in immediate mode, with a real inbox and archive."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from tasks.huey_app import GatewayHuey
from tasks.telemetry import archive_records, publish_records, records_stored, records_waiting
from teg.adapters.gateway_db import outbox
from teg.adapters.gateway_db.database import Database
from teg.adapters.gateway_db.outbox import RecordTable
from teg.adapters.inbox.mailbox import Inbox
from teg.domain.errors import NotConnected, Unavailable
from teg.domain.telemetry.ingest import Recorder
from teg.domain.telemetry.ports import Stream
from teg.domain.telemetry.publisher import Publisher
from tests.support.links import FakeClock, FakeLink
from tests.support.running import ControllerInbox, message
from tests.support.tasks import FakeServices, serving


class Site:
    """Everything between the controller and the server but the processes."""

    def __init__(self, path: Path) -> None:
        self.controller = ControllerInbox(path / "communication_queue.db")
        self.database = Database(path / "gateway.db")
        self.database.open(outbox.SCHEMA)
        self.table = RecordTable(self.database)
        self.inbox = Inbox(self.controller.path)
        self.link = FakeLink()
        services: Any = FakeServices()
        self.services = services
        services.session = self.link
        services.recorder = Recorder(self.inbox, self.table, records_stored, idle_timeout_s=0.0)
        services.publisher = Publisher(self.table, cast(Any, self.link), FakeClock(), idle_timeout_s=0.0)

    def insert(self, *numbers: int) -> None:
        self.controller.insert_many([message(number) for number in numbers])

    def arrived(self) -> list[int]:
        return [number for batch in self.link.sent for number in batch]

    def pending(self) -> int:
        return len(self.table.pending(Stream.DATA, 0, 10_000, 10**9))

    def close(self) -> None:
        self.inbox.close()
        self.controller.close()
        self.database.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


@pytest.fixture
def queue(site: Site) -> Iterator[GatewayHuey]:
    with serving(site.services) as queue:
        yield queue


def waiting(queue: GatewayHuey) -> list[str]:
    return sorted(task.name for task in queue.scheduled())


def test_a_row_goes_all_the_way(site: Site, queue: GatewayHuey) -> None:
    site.insert(1, 2, 3)
    records_waiting()
    assert site.arrived() == [1, 2, 3]
    assert site.controller.count() == 0
    assert site.pending() == 0
    assert waiting(queue) == []


def test_without_a_connection_rows_are_archived_and_nothing_is_queued(site: Site, queue: GatewayHuey) -> None:
    """A day offline at a row a second must not leave a task a row behind."""
    site.link.connected = False
    for number in range(50):
        site.insert(number)
        records_waiting()
    assert site.controller.count() == 0
    assert site.pending() == 50
    assert waiting(queue) == []
    site.link.reconnect()
    publish_records()
    assert site.arrived() == list(range(50))


def test_a_connection_that_ends_leaves_one_retry(site: Site, queue: GatewayHuey) -> None:
    site.link.connected = False
    site.insert(1)
    archive_records()
    for _ in range(5):
        publish_records()
    assert waiting(queue) == ["publish_records"]
    site.link.reconnect()
    queue.execute(queue.scheduled()[0], queue.scheduled()[0].eta)
    assert site.arrived() == [1]


def test_a_locked_inbox_leaves_one_retry(site: Site, queue: GatewayHuey, monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(*_: object) -> Any:
        raise Unavailable("database is locked")

    site.insert(1)
    with monkeypatch.context() as patch:
        patch.setattr(site.inbox, "read", locked)
        records_waiting()
        records_waiting()
    assert waiting(queue) == ["archive_records"]
    assert site.controller.count() == 1
    queue.execute(queue.scheduled()[0], queue.scheduled()[0].eta)
    assert site.arrived() == [1]


def test_a_full_disk_keeps_rows_in_the_inbox(site: Site, queue: GatewayHuey, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise Unavailable("database or disk is full")

    site.insert(1)
    with monkeypatch.context() as patch:
        patch.setattr(site.table, "store", full)
        records_waiting()
    assert site.controller.count() == 1
    assert waiting(queue) == ["archive_records"]


def test_a_recorder_at_work_is_notified_instead_of_queued(site: Site, queue: GatewayHuey) -> None:
    recorder = site.services.recorder
    with recorder.signal.draining():
        site.insert(1)
        records_waiting()
        assert site.controller.count() == 1, "nobody else took it"
        assert recorder.signal.wait(0.0), "but the one at work was notified"


def test_a_publisher_at_work_is_notified_instead_of_queued(site: Site, queue: GatewayHuey) -> None:
    publisher = site.services.publisher
    with publisher.signal.draining():
        site.insert(1)
        records_waiting()
        assert site.pending() == 1
        assert site.arrived() == []
        assert publisher.signal.wait(0.0)


def test_both_tasks_are_harmless_twice(site: Site, queue: GatewayHuey) -> None:
    site.insert(1, 2)
    for _ in range(3):
        archive_records()
        publish_records()
    assert site.arrived() == [1, 2]


def test_a_stop_ends_both(site: Site, queue: GatewayHuey) -> None:
    site.services.stopping.set()
    site.insert(1)
    archive_records()
    publish_records()
    assert site.controller.count() == 1
    assert site.arrived() == []
    assert waiting(queue) == []


def test_a_connection_that_ends_in_the_middle_sends_the_rest_again(site: Site, queue: GatewayHuey) -> None:
    site.link.hold = 1000  # nothing is acknowledged
    site.link.connected = False
    site.insert(*range(1, 101))
    archive_records()
    site.link.reconnect()
    site.link.takes = lambda payload: False
    publish_records()
    assert site.pending() == 100
    assert waiting(queue) == ["publish_records"]
    site.link.takes, site.link.hold = lambda payload: True, 1
    site.link.reconnect()
    publish_records()
    assert site.pending() == 0
    assert set(site.arrived()) == set(range(1, 101))


def test_before_the_start_and_after_the_stop_producers_are_told(site: Site) -> None:
    with pytest.raises(Unavailable, match="not open"):
        records_waiting()
    with pytest.raises(Unavailable, match="not open"):
        records_stored()
    assert issubclass(NotConnected, Unavailable)
