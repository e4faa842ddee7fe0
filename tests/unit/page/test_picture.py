"""What is seen: bounded, whatever a controller wrote; a part that fails costs only itself; one look for all."""

import threading
from dataclasses import asdict, replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from teg.console.page.picture import KEYS, POINTS, VALUE_CHARACTERS, newest_values, picture
from teg.console.page.tails import LINE_CHARACTERS, LINES, Tails
from teg.domain.errors import Refused, Unavailable
from teg.domain.files.summary import files_summary
from teg.domain.ota.assignment import AcceptRules, parse_assignment, relevant
from teg.domain.ota.job import Job, Phase, Wanted, begin
from teg.domain.ota.summary import update_summary
from tests.support.page import PageRig
from tests.support.running import wait_until
from tests.support.threads import runs


def record(ts_ms: int, **values: Any) -> bytes:
    return orjson.dumps({"ts": ts_ms, "values": values})


def test_the_newest_value_of_each_key_and_those_before_it() -> None:
    found = newest_values([record(3, a=3, b="x"), record(2, a=2.5), record(1, a=1, c=True)])
    assert found == [
        {"key": "a", "value": 3, "ts_ms": 3, "points": [1, 2.5, 3]},
        {"key": "b", "value": "x", "ts_ms": 3, "points": []},
        {"key": "c", "value": True, "ts_ms": 1, "points": []},
    ]


def test_many_keys_and_long_values_are_cut() -> None:
    many = {f"k{number}": "v" * 10_000 for number in range(1_000)} | {"k" * 5_000: 1}
    found = newest_values([record(1, **many)])
    assert len(found) == KEYS
    assert max(len(row["value"]) for row in found if isinstance(row["value"], str)) == VALUE_CHARACTERS
    assert len(newest_values([record(n, a=n) for n in range(500)])[0]["points"]) == POINTS


ODD = [
    b"",
    b"[]",
    b"null",
    b"5",
    b"{}",
    b'{"values": []}',
    b'{"values": 5, "ts": 1}',
    b"\xff",
    b'{"ts": "x", "values": {"a": [1]}}',
]


@given(st.lists(st.one_of(st.sampled_from(ODD), st.binary(max_size=50)), max_size=8))
def test_what_is_no_record_harms_nobody(records: list[bytes]) -> None:
    orjson.dumps(newest_values([*records, record(1, a=1)]))


@pytest.mark.parametrize("reason", [Unavailable("locked"), Refused("no")])
def test_a_part_that_cannot_be_read_says_so_and_the_rest_is_there(reason: Exception) -> None:
    rig = PageRig()

    def broken() -> dict[str, Any]:
        raise reason

    rig.update = broken
    seen = picture(rig.sources)
    assert seen["update"] == {"error": str(reason)}
    assert seen["tasks"] == {"rpc": {"workers": 1, "waiting": 0}}


def test_trouble_is_that_of_teg_status() -> None:
    rig = PageRig()
    rig.status["connection"] = {"connected": False, "last_end": "refused", "since_ms": 1}
    assert picture(rig.sources)["trouble"] == [{"text": "refused", "remedy": ""}]


def test_a_picture_that_fails_does_not_end_those_to_come(caplog: pytest.LogCaptureFixture) -> None:
    rig = PageRig()
    nothing: dict[str, Any] = {}
    rig.update = lambda: nothing["a defect of ours"]
    looking = rig.looking
    looking.start()
    assert "cannot be drawn" in looking.seen()[1].decode()
    assert rig.get("/readyz").code == 503
    rig.update = dict
    wait_until(lambda: b"status" in looking.seen()[1], 10, "the next one is whole")
    looking.stop()
    assert "the status page cannot be drawn" in caplog.text


def test_nobody_waits_for_ever_and_nobody_looks_for_nobody() -> None:
    rig = PageRig()
    rig.looking.start()
    before = rig.looks
    rig.looking.stop()
    assert rig.looks == before == 0, "only the curves are kept while nobody looks"
    assert not runs("page-looking")


def test_a_log_is_read_by_one_and_an_engine_that_hangs_holds_up_one() -> None:
    hangs, let_go = threading.Event(), threading.Event()

    def read(lines: int) -> list[str]:
        hangs.set()
        let_go.wait(10)
        return ["x" * 10_000] * 500

    tails = Tails({"controller": read})
    first: list[list[str]] = []
    reader = threading.Thread(target=lambda: first.append(tails.lines("controller")))
    reader.start()
    hangs.wait(10)
    assert tails.lines("controller") == [], "answered at once with what is known"
    let_go.set()
    reader.join(10)
    assert len(first[0]) == LINES
    assert {len(line) for line in first[0]} == {LINE_CHARACTERS}


def test_files_as_the_server_was_told_of_them() -> None:
    told = {
        "FILE_HASHES": orjson.dumps({"a": {"hash": "1", "write_version": 3}, "b": 5}),
        "FILE_ERROR_a": b'""',
        "FILE_ERROR_c": b'"not allowed"',
        "FILE_CONFIRM_a": b'"confirmed"',
        "FILES_ERROR": b'""',
    }
    found = files_summary(told)
    assert found["problem"] == ""
    assert found["files"] == [
        {"name": "a", "hash": "1", "version": 3, "confirmation": "confirmed", "error": ""},
        {"name": "b", "hash": None, "version": None, "confirmation": "", "error": ""},
        {"name": "c", "hash": None, "version": None, "confirmation": "", "error": "not allowed"},
    ]
    assert files_summary({}) == {"problem": "", "files": []}


class Kept(dict[str, Any]):
    """`ports.State`, as far as it is read."""

    def put(self, key: str, value: Any) -> None: ...
    def delete(self, key: str) -> None: ...
    def keys(self, prefix: str = "") -> list[str]:  # type: ignore[override]
        return []


def test_an_update_of_another_version_of_the_gateway_is_no_error() -> None:
    assert update_summary(Kept()) == {"wanted": "", "job": None, "failed": False, "previous": ""}
    wanted = asdict(Wanted(1, relevant({"sw_title": "controller", "sw_version": "1.2"})))
    odd = update_summary(Kept({"ota.job": {"phase": "flying"}, "ota.wanted": wanted}))
    assert (odd["job"] or {})["phase"] == "unknown"
    assert odd["wanted"] == "1.2"


def test_an_update_in_progress_is_told_in_the_words_of_the_server() -> None:
    attributes = relevant({"sw_title": "controller", "sw_version": "1.2"})
    job: Job = replace(
        begin(1, parse_assignment(attributes or {}, AcceptRules()), "1.1", False), phase=Phase.TRIAL, attempt=2
    )
    told = update_summary(Kept({"ota.job": job.encode(), "ota.previous": "1.1"}))
    assert told["job"] == {"version": "1.2", "phase": "trial", "state": "UPDATING", "attempt": 2, "reason": ""}
    assert told["previous"] == "1.1"
