"""The timetable: each line does its work, is harmless right after boot and without a connection, finds lost work."""

from collections.abc import Iterator
from typing import Any

import pytest

from tasks import periodic
from tasks.huey_app import GatewayHuey
from tasks.periodic import (
    TIMETABLE,
    read_wanted_state,
    send_auxiliary_telemetry,
    store_log_lines,
    sweep,
    take_over_reference,
    tidy_archive,
)
from teg.domain.errors import NotConnected, Unavailable
from tests.support.tasks import FakeServices, serving

DAY_S = 24 * 3600


@pytest.fixture
def services() -> Any:
    services: Any = FakeServices()
    services.log_lines.waiting = True
    services.publisher.due = services.flash.due = services.link.due = False
    return services


@pytest.fixture
def queue(services: Any) -> Iterator[GatewayHuey]:
    with serving(services) as queue:
        for entry in TIMETABLE:
            entry.make_due()
        yield queue


def waiting(queue: GatewayHuey) -> list[str]:
    return sorted(task.name for task in queue.scheduled())


def day(services: Any, from_s: int = 1000, seconds: int = 3600) -> dict[str, int]:
    """How often each service was called while the scheduler ticked once a second."""
    for second in range(from_s, from_s + seconds):
        for entry in TIMETABLE:
            entry.tick(second)
    return {name: services.done.count(name) for name in set(services.done)}


def test_an_hour_of_the_timetable(services: Any, queue: GatewayHuey) -> None:
    counts = day(services)
    assert counts["auxiliary.send"] == 180
    assert counts["log_lines.store"] == 720
    assert counts["recorder.run"] == counts["publisher.run"] == 60
    assert counts["reporter.publish_attributes"] == 60
    assert counts["calls.tend"] == counts["ota.advance"] == 60
    assert counts["synchroniser.read_software"] == counts["files.reconcile"] == 6
    assert counts["legacy_import.run"] == 1
    assert counts["retention.run"] == 360, "as long as it is due"


def test_every_line_runs_at_the_start(services: Any, queue: GatewayHuey) -> None:
    day(services, seconds=1)
    done = {name.split(".")[0] for name in services.done}
    assert {"auxiliary", "log_lines", "recorder", "publisher", "calls", "ota", "files", "retention"} <= done


def test_nothing_is_sent_while_there_is_no_connection(services: Any, queue: GatewayHuey) -> None:
    services.session.connected = False
    counts = day(services)
    assert counts["recorder.run"] == 60, "archiving goes on"
    for name in ("publisher.run", "auxiliary.send", "synchroniser.read_software", "reporter.publish_attributes"):
        assert name not in counts
    assert waiting(queue) == [], "and no retries gather"


def test_quiet_hours_write_no_log_tasks(services: Any, queue: GatewayHuey) -> None:
    services.log_lines.waiting = False
    assert "log_lines.store" not in day(services)


def test_a_day_in_which_everything_fails_leaves_a_handful_of_tasks(services: Any, queue: GatewayHuey) -> None:
    for name in ("recorder.run", "publisher.run", "reporter.publish_attributes", "files.reconcile", "ota.advance"):
        services.fail[name] = NotConnected("gone")
    for name in (
        "auxiliary.send",
        "log_lines.store",
        "retention.run",
        "legacy_import.run",
        "synchroniser.read_software",
    ):
        services.fail[name] = Unavailable("disk full")
    day(services, seconds=7200)
    assert len(waiting(queue)) == len(set(waiting(queue))) <= 8


def test_the_sweep_finds_lost_work(services: Any, queue: GatewayHuey) -> None:
    sweep()
    assert services.done == ["recorder.run", "publisher.run", "reporter.publish_attributes"]


def test_a_lost_push_is_found_within_ten_minutes(services: Any, queue: GatewayHuey) -> None:
    read_wanted_state()
    assert services.done == ["synchroniser.read_limits", "synchroniser.read_software", "files.reconcile"]
    services.session.connected = False
    read_wanted_state()
    assert len(services.done) == 3


@pytest.mark.parametrize(
    ("task", "call"),
    [
        (send_auxiliary_telemetry, "auxiliary.send"),
        (store_log_lines, "log_lines.store"),
        (tidy_archive, "retention.run"),
    ],
)
def test_what_comes_again_by_itself_is_not_retried(services: Any, queue: GatewayHuey, task: Any, call: str) -> None:
    services.fail[call] = Unavailable("not now")
    task()
    assert services.done == [call]
    assert waiting(queue) == []


def test_taking_over_is_retried_until_it_is_done(services: Any, queue: GatewayHuey) -> None:
    services.fail["legacy_import.run"] = Unavailable("locked")
    take_over_reference()
    assert waiting(queue) == ["take_over_reference"]


def test_a_programming_error_ends_its_task_only(
    services: Any, queue: GatewayHuey, caplog: pytest.LogCaptureFixture
) -> None:
    services.fail["recorder.run"] = KeyError("ours")
    sweep()
    assert "publisher.run" in services.done
    assert "KeyError" in caplog.text


def test_what_expires_expires_before_it_comes_again() -> None:
    """Otherwise a stalled lane would run the same thing twice in a row when it goes on."""
    for entry in TIMETABLE:
        expires_s = entry.task.task_class.default_expires  # type: ignore[attr-defined]
        if expires_s is not None and entry.interval_s >= 20:
            assert expires_s <= max(entry.interval_s, 60), entry.task.task_class.__name__


def test_the_timetable_fits_on_a_screen() -> None:
    assert len(TIMETABLE) <= 15
    assert periodic.MINUTE_S * 60 == periodic.HOUR_S
