"""What is done and said when a connection ends: table-driven."""

import logging
import random
from collections import Counter
from dataclasses import replace

import pytest

from teg.domain.backoff import Backoff
from teg.domain.server.reconnect import (
    CREDENTIALS_WAIT_S,
    FLEET_SPREAD,
    LONGEST_WAIT_SPREAD,
    RECONNECT,
    STABLE_S,
    ConnectionPolicy,
    Ended,
    LinkHistory,
)
from teg.domain.server.second_user import CLOSES

#: Large enough for chance to even out.
FLEET = 4000
NO_ROUTE = Ended(False, False, "tb.example:8883: [Errno 113] No route to host")
CLOSED = Ended(True, True, "closed by the server", lasted_s=10.0)
CLOSED_IN_FLIGHT = Ended(True, True, "closed by the server", lasted_s=10.0, unacknowledged=3)
DEAD = Ended(True, False, "Keep alive timeout", lasted_s=10.0)
STABLE = Ended(True, True, "closed by the server", lasted_s=3600.0)


def refused(code: int) -> Ended:
    return Ended(False, False, "closed", refusal=code)


@pytest.mark.parametrize(
    ("ended", "level", "said"),
    [
        (NO_ROUTE, logging.WARNING, "no connection to the server: tb.example:8883: [Errno 113] No route to host"),
        (CLOSED, logging.WARNING, "the connection ended after 10 s: closed by the server"),
        (DEAD, logging.WARNING, "the connection ended after 10 s: Keep alive timeout"),
        (refused(1), logging.ERROR, "does not speak MQTT 3.1.1"),
        (refused(2), logging.ERROR, "knows no such client"),
        (refused(3), logging.ERROR, "not available now or limits our connects"),
        (refused(4), logging.ERROR, "refused the credentials"),
        (refused(5), logging.ERROR, "does not know this access token"),
        (refused(99), logging.ERROR, "CONNACK 99"),
    ],
)
def test_every_end_is_said_in_plain_words(ended: Ended, level: int, said: str) -> None:
    advice = ConnectionPolicy().after(ended)
    assert advice.level == level
    assert said in advice.text
    assert f"next try in {advice.wait_s:.1f} s at the latest" in advice.text


def test_waits_grow_to_the_cap_and_never_reach_zero() -> None:
    policy = ConnectionPolicy(Backoff(1.0, 120.0))
    waits = [policy.after(NO_ROUTE).wait_s for _ in range(200)]
    for attempt, wait_s in enumerate(waits[:7]):
        assert 2.0**attempt / 2 <= wait_s <= 2.0**attempt
    assert 1.0 <= waits[7] <= 120.0
    assert all(LONGEST_WAIT_SPREAD * 120.0 <= wait_s <= 120.0 for wait_s in waits[8:])
    assert len(set(waits[8:])) > 100  # jittered


@pytest.mark.parametrize("code", [2, 4, 5])
def test_wrong_credentials_are_tried_slowly_from_the_start(code: int) -> None:
    assert ConnectionPolicy().after(refused(code)).wait_s >= CREDENTIALS_WAIT_S


def test_a_session_that_held_makes_the_next_wait_short_again() -> None:
    policy = ConnectionPolicy()
    for _ in range(10):
        policy.after(NO_ROUTE)
    assert policy.after(Ended(True, False, "Keep alive timeout", lasted_s=STABLE_S)).wait_s <= 1.0


def test_sessions_that_do_not_hold_keep_the_wait_growing() -> None:
    policy = ConnectionPolicy()
    waits = [policy.after(CLOSED).wait_s for _ in range(8)]
    assert waits[-1] >= RECONNECT.cap_s / 2


def test_whoever_wants_to_reconnect_waits_briefly_and_makes_no_later_wait_longer() -> None:
    policy = ConnectionPolicy()
    for _ in range(20):
        advice = policy.after(DEAD)
        assert 0.5 <= advice.soonest_s <= 1.0
        policy.hurried()
    assert policy.after(DEAD).wait_s <= 1.0
    assert 1.0 <= policy.after(DEAD).wait_s <= 2.0


def test_from_one_try_to_the_next_it_is_never_more_than_half_a_minute() -> None:
    policy = ConnectionPolicy()
    for took_s in (0.0, 0.5, 10.0) * 300:
        assert policy.after(replace(NO_ROUTE, took_s=took_s)).wait_s + took_s <= 30.0


def test_a_try_that_took_long_is_still_followed_by_a_wait() -> None:
    policy = ConnectionPolicy()
    assert all(policy.after(replace(NO_ROUTE, took_s=60.0)).wait_s >= 0.5 for _ in range(50))


@pytest.mark.parametrize("outage_s", [60.0, 150.0, 600.0])
def test_a_fleet_does_not_come_back_in_one_second(outage_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spread evenly over 29 s, 3.5 % come in a second, and by chance some more in the fullest one."""
    chance = random.Random(1)
    monkeypatch.setattr("teg.domain.server.reconnect.random", chance)
    monkeypatch.setattr("teg.domain.backoff.random", chance)
    policies = [ConnectionPolicy() for _ in range(FLEET)]
    times = []
    for policy in policies:
        now_s = policy.after(Ended(True, True, "closed", lasted_s=86_400.0)).wait_s
        while now_s < outage_s:
            now_s += policy.after(NO_ROUTE).wait_s
        times.append(now_s - outage_s)
    assert max(times) <= 30.0
    assert max(Counter(map(int, times)).values()) <= 0.05 * FLEET


def test_a_fresh_start_makes_the_next_wait_short() -> None:
    """The first acknowledged record, and the network coming back, are such starts."""
    policy = ConnectionPolicy()
    for _ in range(10):
        policy.after(NO_ROUTE)
    policy.fresh_start()
    assert policy.after(NO_ROUTE).wait_s <= 1.0


def test_a_thousand_gateways_whose_server_restarts_do_not_come_back_in_one_second() -> None:
    waits = sorted(ConnectionPolicy().after(STABLE).wait_s for _ in range(1000))
    busiest = max(sum(1 for wait_s in waits if start <= wait_s < start + 1.0) for start in waits)
    assert busiest < 500
    assert waits[-1] <= FLEET_SPREAD


def test_a_second_session_with_our_token_is_recognised() -> None:
    policy = ConnectionPolicy()
    texts = [policy.after(CLOSED).text for _ in range(CLOSES)]
    assert "same access token" not in texts[-2]
    assert "another program or a second device" in texts[-1]
    assert policy.after(CLOSED).level == logging.ERROR


@pytest.mark.parametrize("harmless", [STABLE, DEAD, CLOSED_IN_FLIGHT])
def test_other_ends_break_the_row_of_closes(harmless: Ended) -> None:
    policy = ConnectionPolicy()
    for _ in range(CLOSES - 1):
        policy.after(CLOSED)
    policy.after(harmless)
    assert "same access token" not in policy.after(CLOSED).text


def test_three_cuts_of_a_bad_link_are_no_accusation() -> None:
    policy = ConnectionPolicy()
    for _ in range(CLOSES):
        policy.after(NO_ROUTE)
        advice = policy.after(CLOSED)
    assert advice.level == logging.WARNING
    assert "the link is bad, or it may be" in advice.text


def test_the_history_for_people() -> None:
    now_s = [100.0]
    policy = ConnectionPolicy(now_s=lambda: now_s[0])
    assert policy.history == LinkHistory(since_s=100.0)
    now_s[0] = 110.0
    advice = policy.after(Ended(False, False, "no route"))
    assert policy.history == LinkHistory(
        since_s=100.0, reason="no connection to the server: no route", next_try_s=110.0 + advice.wait_s
    ), "the time without a connection counts from its beginning"
    now_s[0] = 120.0
    policy.established()
    assert policy.history == LinkHistory(connected=True, since_s=120.0, reason="no connection to the server: no route")
    now_s[0] = 150.0
    policy.after(Ended(True, True, "closed by the server", lasted_s=30.0))
    assert policy.history.connected is False
    assert policy.history.since_s == 150.0


def test_the_history_tells_a_shared_token_until_a_connection_holds() -> None:
    policy = ConnectionPolicy()
    for _ in range(CLOSES):
        assert policy.history.shared_token is False
        policy.after(CLOSED)
    assert policy.history.shared_token is True
    policy.after(Ended(False, False, "no route"))
    assert policy.history.shared_token is True
    policy.after(Ended(True, True, "closed by the server", lasted_s=1000.0))
    assert policy.history.shared_token is False
