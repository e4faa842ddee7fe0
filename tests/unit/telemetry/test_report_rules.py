"""`TEG_REPORT`: what a technician may write, what it means, and what is said when it means nothing."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teg.domain.errors import Refused
from teg.domain.telemetry.report_rules import (
    EVERY_RECORD,
    FIGURES,
    SILENCE_MS,
    ReportRules,
    Strategy,
    Way,
    parse_report,
)

MEANINGS = [
    ("all", EVERY_RECORD),
    ("never", Strategy(Way.NEVER)),
    ("every 10s", Strategy(Way.WINDOW, 10_000, ("last",))),
    ("last every 10s", Strategy(Way.WINDOW, 10_000, ("last",))),
    ("mean every 60 s", Strategy(Way.WINDOW, 60_000, ("mean",))),
    ("MEAN every 1min", Strategy(Way.WINDOW, 60_000, ("mean",))),
    ("min, max every 1.5h", Strategy(Way.WINDOW, 5_400_000, ("min", "max"))),
    ("min max mean every 1d", Strategy(Way.WINDOW, 86_400_000, ("min", "max", "mean"))),
    ("change", Strategy(Way.CHANGE, SILENCE_MS)),
    ("on change", Strategy(Way.CHANGE, SILENCE_MS)),
    ("change 0.5", Strategy(Way.CHANGE, SILENCE_MS, band=0.5)),
    ("change 2%", Strategy(Way.CHANGE, SILENCE_MS, band=0.02, relative=True)),
    ("change 0.2 every 10min", Strategy(Way.CHANGE, 600_000, band=0.2)),
    ("on change 0.2, at least every 7d", Strategy(Way.CHANGE, 604_800_000, band=0.2)),
]


@pytest.mark.parametrize(("text", "meaning"), MEANINGS)
def test_what_a_strategy_means(text: str, meaning: Strategy) -> None:
    assert parse_report(f"x: {text}").of("x") == meaning


@pytest.mark.parametrize("text", ["", " ", ";", " ; ;"])
def test_without_an_entry_there_are_no_rules(text: str) -> None:
    rules = parse_report(text)
    assert not rules
    assert rules.of("x") == EVERY_RECORD


@pytest.mark.parametrize(
    ("name", "takes", "leaves"),
    [
        ("pm*", ["pm", "pm25", "pm\n"], ["xpm", "p"]),
        ("t?", ["t1", "t:"], ["t", "t12"]),
        ("a:b", ["a:b"], ["a", "b"]),
        ("[x].y", ["[x].y"], ["x.y", "[x]zy"]),
        ("*", ["anything", "Ä"], []),
    ],
)
def test_which_keys_an_entry_takes(name: str, takes: list[str], leaves: list[str]) -> None:
    rules = parse_report(f"{name}: never")
    assert {key: rules.of(key).way for key in takes} == dict.fromkeys(takes, Way.NEVER)
    assert {key: rules.of(key) for key in leaves} == dict.fromkeys(leaves, EVERY_RECORD)


def test_the_first_entry_that_takes_a_key_holds() -> None:
    rules = parse_report("t1: never; t*: change; *: every 10s")
    assert [rules.of(key).way for key in ("t1", "t2", "u")] == [Way.NEVER, Way.CHANGE, Way.WINDOW]


WRONG = [
    ("x", "not of the form 'key: strategy'"),
    (": never", "not of the form"),
    ("x:", "no strategy is given"),
    ("x: maen every 60s", "did you mean 'mean'?"),
    ("x: nevr", "did you mean 'never'?"),
    ("x: mean", "needs a time: 'mean every 60s'"),
    ("x: mean mean every 60s", "named twice"),
    ("x: mean every", "is no time"),
    ("x: mean every 60", "is no time"),
    ("x: mean every 60m", "'m' is no unit of time; there are s, min, h, d"),
    ("x: mean every 0.5s", "is not from 1s to 1d"),
    ("x: mean every 25h", "is not from 1s to 1d"),
    ("x: mean every -5s", "is no time"),
    ("x: mean every 1e3s", "is no time"),
    ("x: mean every nans", "is no time"),
    ("x: change every 32d", "is not from 1s to 31d"),
    ("x: change -1", "is no band"),
    ("x: change 0.5 K", "is no band"),
    ("x: change 0,5", "is no band"),
    ("x: all every 60s", "takes no 'every'"),
    ("x: never every 60s", "takes no 'every'"),
    ("x: never mean every 60s", "'never' is no strategy"),
    ("x: never; x: change", "has an entry already"),
    ("*: never; x: change", "stands behind '*'"),
]


@pytest.mark.parametrize(("text", "said"), WRONG)
def test_what_cannot_be_read_is_refused_with_the_entry_and_the_remedy(text: str, said: str) -> None:
    with pytest.raises(Refused) as refusal:
        parse_report(text)
    assert said in str(refusal.value)
    assert str(refusal.value).startswith("TEG_REPORT: ")
    assert "TEG_REPORT is written like this" in str(refusal.value)


def test_every_wrong_entry_is_named() -> None:
    with pytest.raises(Refused) as refusal:
        parse_report("a: nevr; b: change; c: mean")
    assert [name in str(refusal.value) for name in ("'a: nevr'", "'c: mean'", "'b: change'")] == [True, True, False]


def test_every_example_of_the_documentation_can_be_read() -> None:
    page = (Path(__file__).parents[3] / "docs" / "thin-links.md").read_text()
    settings = re.findall(r"^TEG_REPORT=(.+)$", page, re.MULTILINE)
    rows = re.findall(r"^\| `([^`]+: [^`]+)` \|", page, re.MULTILINE)
    assert (len(settings), len(rows)) >= (1, 8)
    assert all(map(parse_report, [*settings, *rows]))


@given(st.text())
def test_any_text_is_rules_or_a_refusal(text: str) -> None:
    try:
        rules = parse_report(text)
    except Refused:
        return
    assert isinstance(rules, ReportRules)
    for _, strategy in rules.entries:
        assert strategy.way in (Way.ALL, Way.NEVER) or strategy.every_ms >= 1000
        assert set(strategy.figures) <= set(FIGURES)
