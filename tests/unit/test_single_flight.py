"""One run at a time, and none forgotten."""

import threading
from collections.abc import Mapping
from typing import Any, cast

import pytest

from teg.domain.concurrency import SingleFlight
from teg.domain.telemetry.reporting import Reporter
from tests.support.own_reports import FakeAttributes


def test_a_call_during_a_run_repeats_it_and_does_not_wait() -> None:
    work = SingleFlight()
    runs: list[int] = []

    def run() -> None:
        runs.append(1)
        if len(runs) == 1:
            other = threading.Thread(target=work.run, args=(run,))
            other.start()
            other.join(10)
            assert not other.is_alive(), "it waits for us"
            assert len(runs) == 1, "two at once"

    work.run(run)
    assert len(runs) == 2
    assert not work.wanted


def test_what_failed_stays_wanted() -> None:
    work = SingleFlight()

    def fail() -> None:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        work.run(fail)
    assert work.wanted
    work.run(lambda: None)
    assert not work.wanted


def test_no_call_is_forgotten_between_threads() -> None:
    """Every call is followed by a run that began after it."""
    work = SingleFlight()
    asked, seen = 0, 0
    lock = threading.Lock()

    def look() -> None:
        nonlocal seen
        seen = asked

    def ask() -> None:
        nonlocal asked
        for _ in range(2000):
            with lock:
                asked += 1
            work.run(look)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == asked == 8000


def test_a_newer_attribute_is_never_overtaken_by_an_older_one() -> None:
    """Two workers publish; the first one's message is slow."""
    pending = FakeAttributes()
    server: dict[str, bytes] = {}

    class Session:
        def deliver(self, topic: str, payload: bytes, timeout_s: float = 30.0) -> None:
            if b'"old"' in payload:
                reporter.attributes({"state": "new"})
                other = threading.Thread(target=reporter.publish_attributes)
                other.start()
                other.join(10)
            server["state"] = payload

    nothing: Any = cast(Any, None)
    reporter = Reporter(nothing, pending, cast(Any, Session()), nothing, lambda: None, lambda: None)
    values: Mapping[str, Any] = {"state": "old"}
    reporter.attributes(values)
    reporter.publish_attributes()
    assert server == {"state": b'{"state":"new"}'}
    assert pending.pending() == []
