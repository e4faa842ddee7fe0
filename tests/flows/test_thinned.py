"""Records that TEG_REPORT thins, through the tasks: what the link carries, what the archive keeps, who looks when."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import orjson
import pytest

from tasks import periodic
from tasks.huey_app import GatewayHuey
from tasks.telemetry import publish_records
from teg.domain.errors import NotConnected
from teg.domain.telemetry.publisher import Publisher
from teg.domain.telemetry.thinning import Thinner
from tests.support.links import FakeLink
from tests.support.tasks import FakeServices, serving
from tests.support.thinned import TS, ThinnedSite


class Site(ThinnedSite):
    """The publisher and its link in place of a plain `send`."""

    def __init__(self, path: Path) -> None:
        self.link = FakeLink()
        super().__init__(path, "x: mean every 60s; y: never")
        services: Any = FakeServices()
        services.session = self.link
        self.services = services

    def restart(self, rules: str | None = None) -> None:
        super().restart(rules)
        link, thinner = cast(Any, self.link), self.thinner
        self.publisher = Publisher(self.archive.table, link, self.clock, idle_timeout_s=0.0, thinner=thinner)

    def arrived(self) -> list[dict[str, Any]]:
        return [record["values"] for payload in self.link.payloads for record in orjson.loads(payload)]

    def tick(self, now_s: float) -> None:
        """What the timetable asks for at this moment."""
        self.services.publisher = self.publisher
        line = next(each for each in periodic.TIMETABLE if each.task is publish_records)
        line.make_due()
        line.tick(now_s)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def queue(site: Site) -> Iterator[GatewayHuey]:
    with serving(site.services) as queue:
        yield queue


def test_the_timetable_closes_a_window_that_nothing_more_comes_for(site: Site, queue: GatewayHuey) -> None:
    site.clock.ms = TS
    site.record((TS, {"x": 1, "y": 2, "z": 3}), (TS + 1000, {"x": 2, "y": 2, "z": 3}))
    site.tick(1.0)
    assert site.arrived() == [{"z": 3}, {"z": 3}]
    site.tick(2.0)
    assert len(site.arrived()) == 2
    site.clock.advance(200)
    site.tick(3.0)
    assert site.arrived()[2:] == [{"x": 1.5}]
    site.archive.assert_account()


def test_nobody_looks_while_there_is_no_session(site: Site, queue: GatewayHuey) -> None:
    site.link.connected = False
    site.record((TS, {"x": 1}))
    site.tick(1.0)
    assert site.archive.counts()["pending"] == 1
    site.archive.assert_account()


def test_a_lost_connection_repeats_what_was_cut_and_not_what_was_held(site: Site) -> None:
    site.link.takes = lambda _: False
    site.record(*((TS + n, {"x": n, "y": n, "z": n}) for n in range(10)))
    with pytest.raises(NotConnected):
        site.publisher.run(lambda: False)
    site.link.takes = lambda _: True
    site.link.payloads.clear()
    site.link.reconnect()
    site.clock.advance(1000)
    for _ in range(20):
        site.publisher.run(lambda: False)
    assert {"x": 4.5} in site.arrived()
    assert [values for values in site.arrived() if values != {"x": 4.5}][-10:] == [{"z": n} for n in range(10)]
    site.archive.assert_account()


def test_fresh_records_do_not_wait_for_a_thinned_backlog_to_be_sent(site: Site) -> None:
    """What had waited when the connection was made is a backlog, thinned or not."""
    site.record(*((TS + n, {"z": n, "y": 0, "filler": "x" * 500}) for n in range(1000)))
    site.link.hold = 1
    sent = site.link.publish

    def publish(topic: str, payload: bytes, on_done: Any) -> None:
        if len(site.link.payloads) == 2:
            site.record((TS + 10**6, {"z": -1}))
        sent(topic, payload, on_done)

    site.link.publish = publish  # type: ignore[method-assign]
    site.publisher.run(lambda: False)
    numbers = [values["z"] for values in site.arrived()]
    assert sorted(numbers) == [-1, *range(1000)]
    assert numbers.index(-1) < 500


def test_without_rules_the_publisher_reads_the_outbox_as_it_is(site: Site) -> None:
    site.restart("")
    assert not site.thinner.active
    site.record(*((TS + n, {"x": n}) for n in range(100)))
    site.publisher.run(lambda: False)
    assert len(site.arrived()) == 100
    assert isinstance(site.thinner, Thinner)
    assert not site.thinner.due
