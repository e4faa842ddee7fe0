"""Waits grow, are capped, and are spread."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teg.domain.backoff import Backoff

BACKOFF = Backoff(first_s=1.0, cap_s=60.0)


def test_the_nominal_wait_doubles_up_to_the_cap() -> None:
    assert [BACKOFF.nominal_s(attempt) for attempt in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]


@pytest.mark.parametrize("attempt", [65, 1000, 10**9])
def test_any_number_of_attempts_is_fine(attempt: int) -> None:
    """Years of retries: a float that overflows would end the loop that never ends."""
    assert BACKOFF.nominal_s(attempt) == 60.0
    assert Backoff(0.001, 3600.0, factor=10.0).nominal_s(attempt) == 3600.0


@given(st.integers(0, 10**6), st.floats(0.01, 100), st.floats(100, 10_000))
def test_a_wait_is_half_to_all_of_its_nominal_value(attempt: int, first_s: float, cap_s: float) -> None:
    backoff = Backoff(first_s, cap_s)
    nominal_s = backoff.nominal_s(attempt)
    assert first_s <= nominal_s <= cap_s
    assert 0.5 * nominal_s <= backoff.wait_s(attempt) <= nominal_s


def test_a_fleet_does_not_march_in_step() -> None:
    waits = [BACKOFF.wait_s(10) for _ in range(500)]
    assert len(set(waits)) > 450
    assert statistics.pstdev(waits) > 5.0, "spread over the whole upper half"


def test_another_factor() -> None:
    assert [Backoff(1.0, 100.0, factor=3.0).nominal_s(n) for n in range(5)] == [1, 3, 9, 27, 81]
