"""A second user of our token, or a bad link?"""

import pytest

from teg.domain.server.second_user import SecondUser, Suspicion


def closed(user: SecondUser, *lasted_s: float, failing: bool = False) -> SecondUser:
    for seconds in lasted_s:
        user.ended(True, True, seconds)
        if failing:
            user.ended(False, False, 0.0)
    return user


def test_the_rhythm_of_the_other_sides_waits_is_most_likely_a_second_user() -> None:
    user = SecondUser()
    assert closed(user, 8.0, 11.0).suspicion is None
    assert closed(user, 9.0).suspicion is Suspicion.LIKELY
    assert "3 times in a row" in user.text()


@pytest.mark.parametrize("lasted_s", [(2.0, 60.0, 11.0), (140.0, 3.0, 30.0)])
def test_cuts_without_a_rhythm_only_may_be(lasted_s: tuple[float, ...]) -> None:
    user = closed(SecondUser(), *lasted_s)
    assert user.suspicion is Suspicion.MAYBE
    assert "the link is bad, or it may be" in user.text()


def test_connects_that_fail_in_between_speak_for_the_link() -> None:
    assert closed(SecondUser(), 8.0, 9.0, 10.0, failing=True).suspicion is Suspicion.MAYBE


def test_a_session_that_held_ends_it() -> None:
    user = closed(SecondUser(), 8.0, 9.0, 10.0)
    user.ended(True, True, 3600.0)
    assert user.suspicion is None
    assert user.text() == ""
