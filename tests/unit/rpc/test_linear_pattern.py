"""Patterns of the command list: they mean what `re` means by them, and none can hold the gateway up."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teg.domain.errors import Refused
from teg.domain.rpc.command_allowlist import parse_command_list
from teg.domain.rpc.linear_pattern import LinearPattern


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+b",
        "(a|a)*b",
        "(a|aa)+b",
        "(.*)*x",
        ".*.*.*.*.*.*.*.*x",
        "(a*)*(a*)*(a*)*b",
        "([a-z]+)*[0-9]",
        "(x+x+)+y",
        "(a?){60}a{60}b",
        r"(\w+\s?)*!",
        "((a{0,10}){0,10}){0,3}b",
    ],
)
def test_patterns_made_to_take_for_ever_are_matched_at_once_or_refused(pattern: str) -> None:
    """Processor time: with backtracking these take from minutes to for ever."""
    before = time.thread_time()
    try:
        found = LinearPattern(pattern)
    except Refused:
        return
    for text in ("a" * 256, "x" * 256, "ab " * 85):
        assert not found.fullmatch(text + "?")
    assert time.thread_time() - before < 5


@pytest.mark.parametrize(
    "pattern",
    [r"(a)\1", "(?=a)a", "(?!b)a", "(?<=a)b", "(?<!a)b", r"\bword\b", "(?>a+)b", "a++b", "(a)?(?(1)b|c)", "a^b", "a$b"],
)
def test_what_is_not_regular_is_refused_when_it_is_read(pattern: str) -> None:
    with pytest.raises(Refused, match="for ever"):
        LinearPattern(pattern)


@pytest.mark.parametrize("pattern", ["(", "[", "*", "a{3,1}", "a{9999999}", "(a{100}){100}", "(){5000}", "x" * 600])
def test_broken_and_huge_patterns_are_refused(pattern: str) -> None:
    with pytest.raises(Refused):
        LinearPattern(pattern)


def _nested(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{0,3}", "{1,}", "*?"])).map(
            lambda x: f"({x[0]}){x[1]}"
        ),
        st.tuples(inner, inner).map(lambda x: f"{x[0]}|{x[1]}"),
        st.tuples(inner, inner).map("".join),
        inner.map(lambda x: f"(?:{x})"),
        inner.map(lambda x: f"({x})"),
    )


PATTERNS = st.recursive(
    st.sampled_from(["a", "b", ".", "[ab]", "[^a]", r"\d", r"\w", r"\.", "[a-c0-3]", "", "é", "A"]),
    _nested,
    max_leaves=6,
)


@given(PATTERNS, st.sampled_from(["", "^"]), st.sampled_from(["", "$"]), st.text("ab.1é\nA", max_size=6))
def test_it_means_what_re_means(pattern: str, start: str, end: str, text: str) -> None:
    whole = f"{start}(?:{pattern}){end}"
    assert LinearPattern(whole).fullmatch(text) == (re.fullmatch(whole, text) is not None)


@given(PATTERNS, st.text("abAB1", max_size=6))
def test_flags_are_those_of_the_pattern(pattern: str, text: str) -> None:
    whole = f"(?i){pattern}"
    assert LinearPattern(whole).fullmatch(text) == (re.fullmatch(whole, text) is not None)


LIST = '[commands.show]\nargv = ["echo", "{x}"]\n[commands.show.parameters.x]\ntype = "text"\npattern = "[^/]*"\n'


def test_a_value_with_a_zero_byte_never_becomes_an_argument() -> None:
    commands = parse_command_list(LIST)
    with pytest.raises(Refused, match="must match"):
        commands.commands["show"].filled({"x": "a\0b"})


def test_a_dangerous_pattern_is_refused_with_its_place_in_the_file() -> None:
    with pytest.raises(Refused, match=r"commands\.show\.parameters\.x: the pattern uses"):
        parse_command_list(LIST.replace("[^/]*", r"(a)\\1"))
