"""Who may act on the page: one password, sessions that end, guesses that are slowed down, whoever guesses."""

import base64

import pytest

from teg.console.page import sessions as rules
from teg.console.page.sessions import Sessions, TooOften
from teg.domain.errors import Refused

PASSWORD = "correct horse battery"


class Hand:
    now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def hand() -> Hand:
    return Hand()


@pytest.fixture
def sessions(hand: Hand) -> Sessions:
    return Sessions(PASSWORD, hand)


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def test_the_password_opens_a_session_for_its_client_alone(sessions: Sessions) -> None:
    token, session = sessions.sign_in(PASSWORD, "10.0.0.2")
    assert sessions.find(token, "10.0.0.2") is session
    assert sessions.find(token, "10.0.0.3") is None, "a cookie that another service of this host was sent"
    assert sessions.find(token + "x", "10.0.0.2") is None
    assert sessions.find("", "10.0.0.2") is None


@pytest.mark.parametrize("wrong", ["", PASSWORD[:-1], PASSWORD + " ", PASSWORD.upper(), "\ud800", "é" * 5_000, "\0"])
def test_anything_else_is_refused(sessions: Sessions, wrong: str) -> None:
    with pytest.raises(Refused):
        sessions.sign_in(wrong, "10.0.0.2")


def test_without_a_password_nobody_gets_in(hand: Hand) -> None:
    for guess in ("", "None", "password"):
        with pytest.raises(Refused):
            Sessions(None, hand).sign_in(guess, "127.0.0.1")


def test_the_password_is_compared_in_constant_time(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(left: bytes, right: bytes) -> bool:
        compared.append((left, right))
        return False

    monkeypatch.setattr("teg.console.page.sessions.hmac.compare_digest", compare)
    with pytest.raises(Refused):
        sessions.sign_in(PASSWORD, "10.0.0.2")
    [(left, right)] = compared
    assert left == right
    assert len(left) == 32, "digests: a length tells nothing"


def test_guessing_is_slowed_down_and_the_right_password_has_to_wait_too(sessions: Sessions, hand: Hand) -> None:
    for _ in range(rules.CLIENT_GUESSES):
        with pytest.raises(Refused):
            sessions.sign_in("wrong", "10.0.0.2")
    with pytest.raises(TooOften):
        sessions.sign_in(PASSWORD, "10.0.0.2")
    sessions.sign_in(PASSWORD, "10.0.0.3")
    hand.now_s += rules.CLIENT_SPACING_S
    sessions.sign_in(PASSWORD, "10.0.0.2")


def test_who_knows_the_password_is_not_slowed_down(sessions: Sessions) -> None:
    for _ in range(200):
        sessions.check_basic(basic("prometheus", PASSWORD), "10.0.0.9")


def test_many_addresses_guess_no_faster_together(sessions: Sessions) -> None:
    refused = too_often = 0
    for number in range(500):
        try:
            sessions.sign_in("wrong", f"10.0.{number // 250}.{number % 250}")
        except TooOften:
            too_often += 1
        except Refused:
            refused += 1
    assert (refused, too_often) == (rules.ALL_GUESSES, 500 - rules.ALL_GUESSES)


def test_an_ipv6_network_is_one_client(sessions: Sessions) -> None:
    for number in range(rules.CLIENT_GUESSES):
        with pytest.raises(Refused):
            sessions.sign_in("wrong", f"2001:db8::{number:x}")
    with pytest.raises(TooOften):
        sessions.sign_in("wrong", "2001:db8::ffff:1")
    with pytest.raises(TooOften):
        sessions.sign_in("wrong", "2001:db8::1%eth0")
    with pytest.raises(Refused):
        sessions.sign_in("wrong", "2001:db8:0:1::1")


def test_memory_is_bounded_whoever_comes(sessions: Sessions, hand: Hand) -> None:
    tokens = []
    for number in range(2_000):
        hand.now_s += rules.CLIENT_SPACING_S
        tokens.append(sessions.sign_in(PASSWORD, f"10.{number // 250}.0.{number % 250}")[0])
    assert len(sessions._sessions) == rules.MAX_SESSIONS
    assert len(sessions._clients) == rules.MAX_CLIENTS


@pytest.mark.parametrize("pause_s", [rules.IDLE_S + 1, rules.LIFE_S + 1])
def test_a_session_ends(sessions: Sessions, hand: Hand, pause_s: float) -> None:
    token, _ = sessions.sign_in(PASSWORD, "10.0.0.2")
    hand.now_s += pause_s
    assert sessions.find(token, "10.0.0.2") is None


def test_a_session_in_use_ends_after_half_a_day(sessions: Sessions, hand: Hand) -> None:
    token, _ = sessions.sign_in(PASSWORD, "10.0.0.2")
    used_s = 0.0
    while sessions.find(token, "10.0.0.2") is not None:
        hand.now_s += 600
        used_s += 600
        assert used_s < 2 * rules.LIFE_S
    assert used_s > rules.LIFE_S


def test_signing_out_ends_it(sessions: Sessions) -> None:
    token, _ = sessions.sign_in(PASSWORD, "10.0.0.2")
    sessions.sign_out(token)
    sessions.sign_out("never there")
    assert sessions.find(token, "10.0.0.2") is None


@pytest.mark.parametrize(
    "header", ["", "Basic", "Basic !!!", "Basic /w==", "Bearer abc", basic("x", "y"), "Digest a=b"]
)
def test_basic_authorization_that_is_none(sessions: Sessions, header: str) -> None:
    with pytest.raises(Refused):
        sessions.check_basic(header, "10.0.0.2")
