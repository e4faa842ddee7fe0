"""What the console may have the gateway do: two methods, by the groups and the journal of the remote calls."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from teg.domain.errors import Unavailable
from teg.domain.rpc.journal import State
from teg.domain.rpc.local_orders import calls_without_a_gateway, encode_order, obey
from tests.support.rpc import RANGE, Rig

RETRY = encode_order("dead_letters", {"action": "retry", "ids": [1, 2]})


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path / "gateway.db")
    yield rig
    rig.database.close()


def answer(rig: Rig, request: bytes, say: Callable[[bytes], None] = lambda _: None) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(obey(rig.calls, request, say))
    return found


def test_dead_letters_are_queued_again(rig: Rig) -> None:
    assert answer(rig, RETRY) == {"ok": "OK - 10 dead letters queued again"}
    assert rig.session.sent == [], "the server did not ask"


def test_an_order_is_noted_before_it_is_done_and_stays_in_the_journal(rig: Rig) -> None:
    seen: list[tuple[str, bool]] = []
    rig.archive.at_asking = lambda: seen.extend(
        (entry.state, entry.key.request_id < 0) for entry in rig.rpc_journal.recent(5)
    )
    answer(rig, RETRY)
    assert seen == [(State.BEGUN, True)]
    [entry] = rig.rpc_journal.recent(5)
    assert (entry.key.method, entry.state, entry.message) == (
        "dead_letters",
        State.ACKNOWLEDGED,
        "OK - 10 dead letters queued again",
    )


def test_an_order_that_was_interrupted_is_said_so_by_the_next_process(rig: Rig) -> None:
    class Killed(BaseException):
        pass

    def kill() -> None:
        raise Killed

    rig.archive.at_asking = kill
    with pytest.raises(Killed):
        answer(rig, RETRY)
    rig = rig.again()
    assert [entry.state for entry in rig.rpc_journal.recent(5)] == [State.INTERRUPTED]
    rig.database.close()


def test_what_cannot_be_noted_is_not_done(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise Unavailable("disk is full")

    monkeypatch.setattr(rig.rpc_journal, "begin", full)
    assert "it cannot be noted now (disk is full)" in answer(rig, RETRY)["error"]
    assert rig.archive.asked == []


def test_an_order_waits_for_no_call_of_its_group_and_says_busy(rig: Rig) -> None:
    """Both ways: while the server's call is at work, and while the order is."""
    inside: list[Any] = []
    rig.archive.at_asking = lambda: inside.append(answer(rig, RETRY)) if not inside else None
    assert rig.take(1, "archive_discard_messages", RANGE).startswith("OK - 10")
    assert inside == [
        {"error": "busy: work on the archive or the files is going on ('archive_discard_messages'), try again later"}
    ]
    inside.clear()
    rig.archive.at_asking = lambda: inside.append(rig.take(2, "init_files")) if not inside else None
    assert "ok" in answer(rig, RETRY)
    assert "busy: work on the archive or the files is going on ('dead_letters')" in inside[0]
    assert len(rig.inits) == 0


def test_progress_is_told_in_between(rig: Rig) -> None:
    said: list[bytes] = []
    assert answer(rig, encode_order("archive_republish_messages", RANGE), said.append)["ok"].startswith("OK - 10")
    assert [orjson.loads(line) for line in said] == [{"done": 4}, {"done": 10}]


@pytest.mark.parametrize(
    ("method", "params", "expected"),
    [
        ("dead_letters", {"action": "retry"}, "Dead letters: "),
        ("dead_letters", None, ""),
        ("archive_republish_messages", {"start_timestamp_ms": 5}, "missing 'start_timestamp_ms'"),
        ("reboot", {}, "does not know the order 'reboot'"),
        ("archive_discard_messages", {}, "does not know the order"),
    ],
)
def test_what_is_refused_is_told(rig: Rig, method: str, params: Any, expected: str) -> None:
    found = answer(rig, encode_order(method, params))
    assert ("error" in found) == bool(expected)
    assert expected in found.get("error", "")
    assert not found.get("error", "").startswith("Error"), "the console says that it is one"


def test_what_is_switched_off_is_refused(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "gateway.db", disabled=frozenset({"dead_letters"}))
    assert "is disabled on this gateway (TEG_RPC_DISABLED)" in answer(rig, RETRY)["error"]
    rig.database.close()


def test_a_surprise_is_an_answer_too(rig: Rig) -> None:
    def surprise() -> None:
        raise KeyError("rows")

    rig.archive.at_asking = surprise
    assert "Error executing RPC method 'dead_letters'" in answer(rig, RETRY)["error"]


@pytest.mark.parametrize("request_", [b"", b"hello", b"[]", b"{}", b'{"method": ["dead_letters"]}'])
def test_nonsense_is_refused(rig: Rig, request_: bytes) -> None:
    assert "error" in answer(rig, request_)


def test_without_a_gateway_the_same_journal_is_kept(rig: Rig) -> None:
    calls = calls_without_a_gateway(rig.archive, rig.rpc_journal, rig.clock, frozenset())
    assert orjson.loads(obey(calls, RETRY, lambda _: None)) == {"ok": "OK - 10 dead letters queued again"}
    assert [entry.state for entry in rig.rpc_journal.recent(5)] == [State.ACKNOWLEDGED]
    refusing = calls_without_a_gateway(rig.archive, rig.rpc_journal, rig.clock, frozenset({"dead_letters"}))
    assert "is disabled" in orjson.loads(obey(refusing, RETRY, lambda _: None))["error"]
