"""The server's limits: read leniently, kept strictly."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teg.domain.server.rate_limits import CAUTIOUS, SHARE, Limits, Pacer, Rate, parse_limits
from teg.domain.server.wire import MAX_PAYLOAD_BYTES
from teg.simulator.thingsboard.rate_limits import RateLimits, TokenBucket
from teg.simulator.thingsboard.server_limits import ServerLimits


def test_the_answer_of_a_real_server_is_understood() -> None:
    rates = RateLimits("20:1,600:60", None, "300:1")
    assert parse_limits(ServerLimits(rate_limits=rates).session_limits()) == Limits(
        MAX_PAYLOAD_BYTES, (Rate(20, 1), Rate(600, 60)), (Rate(300, 1),)
    )
    assert parse_limits(ServerLimits().session_limits()) == Limits()


def test_both_limits_of_messages_count() -> None:
    answer = {"rateLimits": {"messages": "20:1", "telemetryMessages": "10:1"}}
    assert parse_limits(answer).messages == (Rate(20, 1), Rate(10, 1))


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
    assert all(rate.capacity > 0 and rate.seconds > 0 for rate in limits.messages + limits.points)


def test_without_limits_there_is_no_wait() -> None:
    pacer = Pacer()
    assert pacer.limits.max_points is None
    for _ in range(10_000):
        assert pacer.wait_s(0.0, 1000) == 0.0
        pacer.sent(1000)


def test_the_smallest_bucket_decides_the_size_of_a_batch() -> None:
    assert Limits(points=(Rate(300, 1), Rate(100, 60))).max_points == int(100 * SHARE)
    assert Limits(points=(Rate(1, 1),)).max_points == 1


def test_a_new_session_begins_with_half_a_bucket() -> None:
    """Earlier sessions may have spent the rest: the server's buckets belong to the device, not to the session."""
    pacer = Pacer()
    pacer.use(Limits(messages=(Rate(20, 1),)), 100.0)
    sent = 0
    while pacer.wait_s(100.0, 1) == 0.0:
        pacer.sent(1)
        sent += 1
    assert sent == 8


def test_the_same_limits_after_a_reconnect_give_nothing_back() -> None:
    pacer, limits = Pacer(), Limits(points=(Rate(100, 1),))
    pacer.use(limits, 0.0)
    pacer.sent(40)
    pacer.use(Limits(points=(Rate(100, 1),)), 0.0)
    assert pacer.wait_s(0.0, 40) == pytest.approx(0.5)


def test_before_the_server_has_answered_live_data_flow_and_a_backlog_waits() -> None:
    pacer = Pacer()
    pacer.use(CAUTIOUS, 0.0)
    assert pacer.wait_s(0.0, 10) == 0.0
    assert pacer.limits.max_points == 80
    pacer.sent(40)
    assert pacer.wait_s(0.0, 80) == 1.0
    pacer.use(Limits(), 0.1)
    assert pacer.wait_s(0.1, 10_000) == 0.0


def test_the_wait_is_just_long_enough() -> None:
    pacer = Pacer()
    pacer.use(Limits(messages=(Rate(10, 1),), points=(Rate(1000, 60),)), 0.0)
    pacer.sent(400)
    wait_s = pacer.wait_s(0.0, 400)
    assert wait_s == pytest.approx(30.0)
    assert pacer.wait_s(wait_s, 400) == pytest.approx(0.0)


def test_a_batch_larger_than_the_bucket_waits_for_a_full_one_and_no_longer() -> None:
    pacer = Pacer()
    pacer.use(Limits(points=(Rate(10, 1),)), 0.0)
    assert pacer.wait_s(0.0, 1000) == pytest.approx(0.5)
    assert pacer.wait_s(0.5, 1000) == 0.0


@given(
    st.lists(st.tuples(st.integers(1, 50), st.floats(0.0, 3.0)), min_size=1, max_size=60),
    st.sampled_from(["10:1", "100:1,300:60", "50:10"]),
)
def test_whoever_waits_as_told_never_meets_the_servers_limit(sends: list[tuple[int, float]], spec: str) -> None:
    """The stand-in's bucket is the judge; it starts full, ours half full."""
    server, pacer, now_s = TokenBucket(spec), Pacer(), 0.0
    pacer.use(parse_limits({"rateLimits": {"telemetryDataPoints": spec}}), now_s)
    for points, pause_s in sends:
        points = min(points, pacer.limits.max_points or points)
        now_s += pause_s
        now_s += pacer.wait_s(now_s, points)
        assert server.take(points, now_s)
        pacer.sent(points)
