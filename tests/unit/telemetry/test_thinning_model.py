"""Thinning against a naive model, with crashes, failing commits and lost connections anywhere."""

import tempfile
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from teg.domain.errors import Unavailable
from tests.support.thinned import TS, ThinnedSite

RULES = "m: mean every 10s; l: last every 7s; r: min max every 10s; c: change 2 every 30s; n: never"
KEYS = "mlrcna"
RECORDS = st.lists(
    st.tuples(
        st.integers(0, 20_000),
        st.dictionaries(st.sampled_from(KEYS), st.integers(-20, 20), min_size=1),
    ),
    min_size=1,
    max_size=40,
)
#: What happens between two heaps of records.
EVENTS = st.lists(st.sampled_from(["", "crash", "before", "after", "unsent", "link", "wait"]), max_size=40)
Values = dict[str, Any]


def told_by(records: list[tuple[int, Values]]) -> dict[tuple[str, int], Any]:
    """What a server should have in the end, by grouping all there is; in order of time."""
    told: dict[tuple[str, int], Any] = {}
    windows: dict[tuple[str, int], list[tuple[int, Any]]] = defaultdict(list)
    change: tuple[int, Any] | None = None
    for ts_ms, values in records:
        for key, value in values.items():
            if key == "a":
                told[key, ts_ms] = value
            elif key == "c":
                if change is None or abs(value - change[1]) > 2 or ts_ms - change[0] >= 30_000:
                    told[key, ts_ms] = value
                    change = (ts_ms, value)
            elif key != "n":
                windows[key, ts_ms // (7000 if key == "l" else 10_000)].append((ts_ms, value))
    for (key, _), found in windows.items():
        last_ms = found[-1][0]
        values_of = [value for _, value in found]
        if key == "r":
            told["r_min", last_ms], told["r_max", last_ms] = min(values_of), max(values_of)
        else:
            told[key, last_ms] = values_of[-1] if key == "l" else sum(values_of) / len(values_of)
    return told


def happen(here: ThinnedSite, event: str) -> None:
    if event in ("before", "after"):
        here.store.fails = event
    try:
        here.publish(mark=event != "unsent")
    except Unavailable:
        assert event in ("before", "after")
    if event in ("crash", "before", "unsent"):
        here.restart()
    if event == "link":
        here.archive.table.connection_ended()
    if event == "wait":
        here.clock.advance(11)
    here.store.fails = ""
    here.archive.assert_account()


def lived(records: list[tuple[int, Values]], events: list[str], proofs: bool) -> ThinnedSite:
    with tempfile.TemporaryDirectory() as folder, closing(ThinnedSite(Path(folder), RULES)) as here:
        if proofs:
            here.archive.unproven.keeps_watermarks(True)
        here.clock.ms = TS
        for number, record in enumerate(records):
            here.record(record)
            happen(here, events[number] if number < len(events) else "")
        here.later()
        here.later()
        here.archive.assert_account()
        counts = here.archive.counts()
        assert counts["pending"] == 0
        whole = sum(any(key not in "mlrn" for key in values) for _, values in records)
        assert counts["accepted"] == len(records) == here.archive.maintenance.kept(0, 1 << 62)
        assert counts["held"] >= len(records) - whole
        return here


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(RECORDS, EVENTS, st.booleans())
def test_in_order_the_server_ends_with_exactly_what_the_model_says(
    steps: list[tuple[int, Values]], events: list[str], proofs: bool
) -> None:
    """Each step is later by so much; an unsent or repeated record ends at the same key and time. More is never told."""
    ts_ms, records = TS, []
    for step_ms, values in steps:
        ts_ms += step_ms + 1
        records.append((ts_ms, values))
    here = lived(records, [event for event in events if event != "wait"], proofs)
    expected = told_by(records)
    assert set(here.server) == set(expected)
    for place, value in expected.items():
        assert here.server[place] == pytest.approx(value), place


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(RECORDS, EVENTS, st.booleans())
def test_in_any_order_nothing_is_missing(offsets: list[tuple[int, Values]], events: list[str], proofs: bool) -> None:
    """Late records may make a second point of a window; together the points hold every window's ends and last."""
    records = [(TS + offset * 5 + number, values) for number, (offset, values) in enumerate(offsets)]
    here = lived(records, events, proofs)
    by_time = sorted(records, key=lambda record: record[0])
    assert here.told("a") == [values["a"] for _, values in by_time if "a" in values]
    for key, start in {(key, ts // 10_000) for ts, values in records for key in values if key == "r"}:
        inside = [values[key] for ts, values in records if key in values and ts // 10_000 == start]
        of = {name: [v for (k, ts), v in here.server.items() if k == name and ts // 10_000 == start]
              for name in ("r_min", "r_max")}  # fmt: skip
        assert (min(of["r_min"]), max(of["r_max"])) == (min(inside), max(inside))
    assert not here.told("n")
    assert bool(here.told("c")) == any("c" in values for _, values in records)
