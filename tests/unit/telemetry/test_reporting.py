"""What the gateway says about itself: durable first, in as few messages as the limit allows, newest value last."""

import threading
from pathlib import Path
from typing import Any, cast

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from teg.adapters.gateway_db import state
from teg.adapters.gateway_db.database import Database
from teg.adapters.gateway_db.state import ClientAttributeTable
from teg.domain.errors import NotConnected, Refused, Unavailable
from teg.domain.server.wire import ATTRIBUTES, MAX_PAYLOAD_BYTES, TELEMETRY
from teg.domain.telemetry.reporting import Auxiliary, Reporter
from tests.support.links import FakeClock
from tests.support.own_reports import FakeAttributes, FakeOwn, FakeSession


class Rig:
    def __init__(self, path: Path) -> None:
        self.database = Database(path)
        self.database.open(state.SCHEMA)
        self.table = ClientAttributeTable(self.database)
        self.session, self.own, self.clock = FakeSession(), FakeOwn(), FakeClock()
        self.stored = self.waiting = 0
        self.reporter = Reporter(self.own, self.table, cast(Any, self.session), self.clock, self._stored, self._waiting)

    def _stored(self) -> None:
        self.stored += 1

    def _waiting(self) -> None:
        self.waiting += 1


@pytest.fixture
def rig(tmp_path: Path) -> Any:
    rig = Rig(tmp_path / "gateway.db")
    yield rig
    rig.database.close()


# --- telemetry of our own ----------------------------------------------------------------------------------


def test_own_telemetry_is_stored_then_told(rig: Rig) -> None:
    rig.reporter.telemetry({"sw_state": "UPDATED"})
    rig.reporter.telemetry({"sw_state": "FAILED"}, ts_ms=5)
    assert rig.own.records == [(rig.clock.ms, {"sw_state": "UPDATED"}), (5, {"sw_state": "FAILED"})]
    assert rig.stored == 2


def test_what_cannot_be_stored_is_not_told(rig: Rig) -> None:
    rig.own.broken = True
    with pytest.raises(Unavailable):
        rig.reporter.telemetry({"sw_state": "UPDATED"})
    assert rig.stored == 0


# --- client attributes -------------------------------------------------------------------------------------


def test_attributes_are_sent_in_one_message_and_once(rig: Rig) -> None:
    rig.reporter.attributes({"a": 1, "b": {"deep": [1, None, "ü"]}})
    rig.reporter.attributes({"c": "text"})
    assert rig.waiting == 2
    rig.reporter.publish_attributes()
    rig.reporter.publish_attributes()
    [(topic, payload, _)] = rig.session.sent
    assert topic == ATTRIBUTES
    assert orjson.loads(payload) == {"a": 1, "b": {"deep": [1, None, "ü"]}, "c": "text"}


def test_the_last_value_of_a_key_wins(rig: Rig) -> None:
    for number in range(5):
        rig.reporter.attributes({"a": number})
    rig.reporter.publish_attributes()
    assert rig.session.values() == {"a": 4}


def test_attributes_wait_for_a_connection_and_over_a_restart(rig: Rig, tmp_path: Path) -> None:
    rig.session.fail_after = 0
    rig.reporter.attributes({"a": 1})
    with pytest.raises(NotConnected):
        rig.reporter.publish_attributes()
    rig.database.close()
    again = Rig(tmp_path / "gateway.db")
    again.reporter.publish_attributes()
    assert again.session.values() == {"a": 1}
    again.database.close()


def test_a_value_set_while_the_older_one_is_on_its_way_is_sent_too(rig: Rig) -> None:
    """The acknowledgement is the older value's; it must not mark the newer one as sent."""
    rig.reporter.attributes({"a": "old"})
    rig.session.on_deliver = lambda payload: (
        rig.reporter.attributes({"a": "new"}) if payload == b'{"a":"old"}' else None
    )
    rig.reporter.publish_attributes()
    rig.reporter.publish_attributes()
    assert [payload for _, payload, _ in rig.session.sent] == [b'{"a":"old"}', b'{"a":"new"}']


def test_setting_an_attribute_again_sends_it_again(rig: Rig) -> None:
    """The server may have been changed meanwhile; saying it again is harmless."""
    for _ in range(2):
        rig.reporter.attributes({"a": 1})
        rig.reporter.publish_attributes()
    assert len(rig.session.sent) == 2


def test_many_attributes_go_in_several_messages_below_the_limit(rig: Rig) -> None:
    values = {f"FILE_READ_{number}": "x" * 7000 for number in range(40)}
    rig.reporter.attributes(values)
    rig.reporter.publish_attributes()
    assert rig.session.values() == values
    assert all(len(payload) <= MAX_PAYLOAD_BYTES for _, payload, _ in rig.session.sent)
    assert len(rig.session.sent) == 5, "eight of 7 kB fit into 60 kB"


def test_many_small_attributes_with_long_names_stay_below_the_limit(rig: Rig) -> None:
    """The names count, and in JSON a name may be longer than it looks."""
    values: dict[str, Any] = {f'"quoted"\t{number:05}' + "n" * 80: number for number in range(1500)}
    rig.reporter.attributes(values)
    rig.reporter.publish_attributes()
    assert rig.session.values() == values
    assert all(len(payload) <= MAX_PAYLOAD_BYTES for _, payload, _ in rig.session.sent)
    assert len(rig.session.sent) == 3


def test_what_was_sent_before_the_link_broke_is_not_sent_again(rig: Rig) -> None:
    values = {f"key{number}": "x" * 25_000 for number in range(6)}
    rig.reporter.attributes(values)
    rig.session.fail_after = 2
    with pytest.raises(NotConnected):
        rig.reporter.publish_attributes()
    rig.session.fail_after = None
    rig.reporter.publish_attributes()
    assert rig.session.values() == values
    assert len(rig.session.sent) == 3


@given(st.dictionaries(st.text(max_size=20), st.integers(0, 59_900).map(lambda size: "y" * size), max_size=12))
def test_any_attributes_arrive_in_messages_below_the_limit(values: dict[str, str]) -> None:
    table = FakeAttributes()
    session = FakeSession()
    reporter = Reporter(FakeOwn(), table, cast(Any, session), FakeClock(), lambda: None, lambda: None)
    accepted = {}
    for key, value in values.items():
        try:
            reporter.attributes({key: value})
            accepted[key] = value
        except Refused:
            pass
    reporter.publish_attributes()
    assert session.values() == accepted
    assert not table.pending()
    assert all(len(payload) <= MAX_PAYLOAD_BYTES for _, payload, _ in session.sent)


@pytest.mark.parametrize("value", ["x" * MAX_PAYLOAD_BYTES, "\x00" * 12_000, object(), {1, 2}, "\ud800"])
def test_what_the_server_would_close_the_connection_on_is_refused(rig: Rig, value: Any) -> None:
    """Stored, it would be sent after every connect and end every connection, for ever."""
    with pytest.raises(Refused, match="client attribute"):
        rig.reporter.attributes({"fine": 1, "a": value})
    rig.reporter.publish_attributes()
    assert rig.session.sent == []
    assert rig.waiting == 0


def test_two_workers_never_leave_the_older_value_on_the_server(rig: Rig) -> None:
    """The first one is held up with the old value in its hands while a second one comes with the new value."""
    held, release = threading.Event(), threading.Event()

    def hold(payload: bytes) -> None:
        if payload == b'{"a":"old"}':
            held.set()
            assert release.wait(20)

    rig.session.on_deliver = hold
    rig.reporter.attributes({"a": "old"})
    first = threading.Thread(target=rig.reporter.publish_attributes)
    first.start()
    assert held.wait(20)
    rig.reporter.attributes({"a": "new"})
    second = threading.Thread(target=rig.reporter.publish_attributes)
    second.start()
    second.join(20)
    release.set()
    first.join(20)
    assert rig.session.values() == {"a": "new"}


# --- auxiliary telemetry -----------------------------------------------------------------------------------


class Aux:
    def __init__(self) -> None:
        self.session, self.clock = FakeSession(), FakeClock()
        self.since_ms: int | None = None
        self.heartbeat_ms: int | None = None
        self.auxiliary = Auxiliary(cast(Any, self.session), cast(Any, self), self, self.clock)

    def running_since_ms(self) -> int | None:
        return self.since_ms

    def last_heartbeat_ms(self) -> int | None:
        return self.heartbeat_ms


STARTUP, HEALTH = "ms_since_controller_startup", "ms_since_last_controller_health_check"


@pytest.mark.parametrize(
    ("since", "heartbeat", "expected"),
    [
        (None, None, {}),
        (-5000, None, {STARTUP: 5000}),
        (None, -10, {HEALTH: 10}),
        (-5000, -10, {STARTUP: 5000, HEALTH: 10}),
        (+7000, +7000, {STARTUP: 0, HEALTH: 0}),
    ],
    ids=["nothing", "runs", "stopped since", "both", "clock set back"],
)
def test_auxiliary_values(since: int | None, heartbeat: int | None, expected: dict[str, int]) -> None:
    aux = Aux()
    aux.since_ms = None if since is None else aux.clock.ms + since
    aux.heartbeat_ms = None if heartbeat is None else aux.clock.ms + heartbeat
    aux.auxiliary.send()
    sent = [(topic, orjson.loads(payload)) for topic, payload, _ in aux.session.sent]
    assert sent == ([(TELEMETRY, {"ts": aux.clock.ms, "values": expected})] if expected else [])


def test_auxiliary_telemetry_does_not_wait_for_a_connection() -> None:
    aux = Aux()
    aux.since_ms = 0
    aux.session.connected = False
    with pytest.raises(NotConnected):
        aux.auxiliary.send()
    aux.session.connected = True
    aux.auxiliary.send()
    assert len(aux.session.sent) == 1, "the one that was not sent is not made up for"
    assert aux.session.sent[0][2] < 20, "given up before the next one is due"
