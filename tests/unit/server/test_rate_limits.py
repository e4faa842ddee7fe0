"""The server's limits: read leniently, kept strictly."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teg.domain.server.rate_limits import (
    LOOK_AGAIN_S,
    REFILL,
    SHARE,
    UNKNOWN_S,
    Limits,
    OnTheWay,
    Pacer,
    Rate,
    data_points,
    parse_limits,
)
from teg.domain.server.wire import ATTRIBUTES, MAX_PAYLOAD_BYTES, TELEMETRY
from teg.simulator.thingsboard.rate_limits import RateLimits, TokenBucket
from teg.simulator.thingsboard.server_limits import ServerLimits


def test_the_answer_of_a_real_server_is_understood() -> None:
    rates = RateLimits("20:1,600:60", None, "300:1")
    assert parse_limits(ServerLimits(rate_limits=rates).session_limits()) == Limits(
        MAX_PAYLOAD_BYTES, messages=(Rate(20, 1), Rate(600, 60)), points=(Rate(300, 1),)
    )
    assert parse_limits(ServerLimits().session_limits()) == Limits()


LATER_S = 10_000.0  #: ours have filled by then


def test_plain_messages_and_those_with_values_are_counted_apart() -> None:
    answer = {"rateLimits": {"messages": "20:1", "telemetryMessages": "10:1"}}
    limits = parse_limits(answer)
    assert (limits.messages, limits.telemetry) == ((Rate(20, 1),), (Rate(10, 1),))
    pacer = Pacer()
    pacer.use(limits, 0.0)
    while not pacer.take(LATER_S, 5):
        pass
    assert pacer.wait_s(LATER_S, 5) > 0
    assert pacer.wait_s(LATER_S, 0) == 0.0, "an answer to a call does not wait for telemetry"


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (65_536, 60_000),
        (10_000, 9_488),
        (1_000_000, 60_000),
        (100, 60_000),
        (-1, 60_000),
        ("x", 60_000),
        (None, 60_000),
    ],
)
def test_payloads_leave_room_for_the_rest_of_the_packet(size: Any, expected: int) -> None:
    assert parse_limits({"maxPayloadSize": size}).max_payload_bytes == expected


@pytest.mark.parametrize("text", ["", "0:1", "5:0", "x:y", "10", ":", 7, None, [], {}, "-5:-5"])
def test_what_is_odd_limits_nothing(text: Any) -> None:
    assert parse_limits({"rateLimits": {"messages": text}}).messages in ((), (Rate(5, 5),))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
)
names = st.sampled_from(["maxPayloadSize", "rateLimits", "messages", "telemetryMessages", "telemetryDataPoints"])


@given(st.dictionaries(names, anything | st.dictionaries(names, anything)))
def test_no_answer_breaks_the_parser(answer: dict[str, Any]) -> None:
    limits = parse_limits(answer)
    assert 0 < limits.max_payload_bytes <= MAX_PAYLOAD_BYTES
    assert all(rate.capacity > 0 and rate.seconds > 0 for rate in limits.messages + limits.telemetry + limits.points)


def test_without_limits_there_is_no_wait() -> None:
    pacer = Pacer()
    assert pacer.limits.max_points is None
    for _ in range(10_000):
        assert pacer.wait_s(0.0, 1000) == 0.0
        pacer.sent(1000)


def test_the_smallest_bucket_decides_the_size_of_a_batch() -> None:
    assert Limits(points=(Rate(300, 1), Rate(100, 60))).max_points == int(100 * SHARE / 2)
    assert Limits(points=(Rate(1, 1),)).max_points == 1


def spend(pacer: Pacer, now_s: float, points: int) -> None:
    pacer.sent(points)
    pacer.arrived(now_s, points)


def fill(pacer: Pacer, now_s: float, points: int = 0) -> int:
    """How many such messages may go at this moment."""
    sent = 0
    while not pacer.take(now_s, points):
        sent += 1
    return sent


def test_limits_once_known_hold_from_the_first_packet_on_and_begin_empty() -> None:
    """The life before may have spent all that we use: the server's buckets belong to the device, not to the session."""
    pacer = Pacer()
    pacer.use(Limits(messages=(Rate(20, 1),), points=(Rate(100, 1),)), 100.0)
    assert pacer.known
    assert pacer.limits.max_points == 40
    assert fill(pacer, 100.0) == 0
    assert fill(pacer, 101.0) == 16, "four fifths of the server's bucket, however long it had to fill"


def test_what_was_under_way_when_the_limits_were_learned_counts() -> None:
    pacer = Pacer()
    pacer.sent(0, 3)
    pacer.use(Limits(messages=(Rate(20, 1),)), 0.0)
    assert fill(pacer, LATER_S) == 16 - 3


def test_what_is_under_way_keeps_its_tokens_until_it_has_arrived_and_takes_them_then() -> None:
    """However late the server counts it, and however early."""
    pacer = Pacer()
    pacer.use(Limits(points=(Rate(100, 1),)), 0.0)
    assert pacer.take(LATER_S, 80) == 0.0
    assert pacer.wait_s(LATER_S + 1000.0, 1) > 0.0, "it may be counted only now"
    pacer.arrived(LATER_S + 1000.0, 80)
    assert pacer.wait_s(LATER_S + 1000.0, 1) > 0.0
    assert pacer.wait_s(LATER_S + 1001.0, 80) == 0.0


def test_a_message_arrives_once() -> None:
    pacer = Pacer()
    pacer.use(Limits(messages=(Rate(10, 1),)), 0.0)
    pacer.sent(0)
    message = OnTheWay(pacer, lambda: LATER_S)
    for _ in range(3):
        message.arrived()
    assert fill(pacer, LATER_S) == 7


def test_before_the_server_has_answered_everything_waits_but_not_for_ever() -> None:
    pacer = Pacer()
    pacer.connected(10.0)
    assert pacer.take(10.1, 80) == LOOK_AGAIN_S
    assert pacer.take(10.1, 0) == LOOK_AGAIN_S
    assert pacer.take(10.0 + UNKNOWN_S, 80) == 0.0, "the question was lost: silence means no limits"


def test_an_answer_without_limits_ends_the_wait_at_once() -> None:
    pacer = Pacer()
    pacer.connected(10.0)
    pacer.use(Limits(), 10.1)
    assert pacer.take(10.1, 10_000) == 0.0


def test_the_same_limits_after_a_reconnect_give_nothing_back() -> None:
    pacer, limits = Pacer(), Limits(points=(Rate(100, 1),))
    pacer.use(limits, 0.0)
    spend(pacer, 1.0, 80)
    pacer.use(Limits(points=(Rate(100, 1),)), 1.0)
    assert pacer.wait_s(1.0, 40) == pytest.approx(0.4 / REFILL)


def test_the_wait_is_just_long_enough() -> None:
    pacer = Pacer()
    pacer.use(Limits(telemetry=(Rate(10, 1),), points=(Rate(1000, 60),)), 0.0)
    spend(pacer, LATER_S, 800)
    wait_s = pacer.wait_s(LATER_S, 400)
    assert wait_s == pytest.approx(24.0 / REFILL)
    assert pacer.wait_s(LATER_S + wait_s, 400) == pytest.approx(0.0)


def test_a_batch_larger_than_the_bucket_waits_for_a_full_one_and_no_longer() -> None:
    pacer = Pacer()
    pacer.use(Limits(points=(Rate(10, 1),)), 0.0)
    assert pacer.wait_s(0.0, 1000) == pytest.approx(0.8 / REFILL)
    assert pacer.wait_s(0.9, 1000) == 0.0


def test_a_connect_waits_until_its_own_messages_are_within_the_limit() -> None:
    pacer = Pacer()
    assert pacer.wait_to_connect_s(0.0, 3) == 0.0
    pacer.use(Limits(messages=(Rate(3, 1),)), 0.0)
    assert pacer.wait_to_connect_s(0.0, 3) == pytest.approx(0.8 / REFILL)
    pacer.sent(0, 3)
    assert pacer.wait_to_connect_s(1.0, 3) > 0.9, "the connect before may not be counted yet"


@pytest.mark.parametrize(
    ("topic", "payload", "points"),
    [
        (TELEMETRY, b'{"ts":1,"values":{"a":1,"b":2}}', 2),
        (TELEMETRY, b'[{"ts":1,"values":{"a":1}},{"ts":2,"values":{"a":1,"b":2}}]', 3),
        (TELEMETRY, b'{"a":1,"ts":5}', 2),
        (TELEMETRY, b"{}", 0),
        (ATTRIBUTES, b'{"a":1,"b":2,"c":3}', 3),
        ("v1/devices/me/attributes/request/1", b'{"sharedKeys":"a,b"}', 0),
        ("v1/devices/me/rpc/response/1", b'{"message":"Pong"}', 0),
    ],
)
def test_what_the_server_counts(topic: str, payload: bytes, points: int) -> None:
    assert data_points(topic, payload) == points


@given(
    st.lists(st.tuples(st.integers(1, 50), st.floats(0.0, 3.0)), min_size=1, max_size=60),
    st.sampled_from(["10:1", "100:1,300:60", "50:10"]),
)
def test_whoever_waits_as_told_never_meets_the_servers_limit(sends: list[tuple[int, float]], spec: str) -> None:
    """The stand-in's bucket is the judge."""
    server, pacer, now_s = TokenBucket(spec), Pacer(), 0.0
    pacer.use(parse_limits({"rateLimits": {"telemetryDataPoints": spec}}), now_s)
    for points, pause_s in sends:
        points = min(points, pacer.limits.max_points or points)
        now_s += pause_s
        while (wait_s := pacer.take(now_s, points)) > 0:
            now_s += wait_s
        assert server.take(points, now_s)
        pacer.arrived(now_s, points)


@pytest.mark.parametrize("spec", ["20:1,600:60", "10:1,300:60", "500:1,15000:60", "50:1,3000:60", "3:1,60:60"])
def test_whoever_waits_as_told_gets_nearly_all_that_the_limit_allows(spec: str) -> None:
    server, pacer, now_s, sent = TokenBucket(spec), Pacer(), 0.0, 0
    pacer.use(parse_limits({"rateLimits": {"telemetryMessages": spec}}), now_s)
    while now_s < 600.0:
        if wait_s := pacer.take(now_s, 1):
            now_s += wait_s
        else:
            assert server.take(1, now_s)
            pacer.arrived(now_s, 1)
            sent += 1
    capacity, seconds = (int(number) for number in spec.split(",")[-1].split(":"))
    assert sent >= 0.95 * 600.0 * capacity / seconds
