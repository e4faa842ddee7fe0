"""docs/queue.md says of every task, lane and interval what the code does."""

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import gateway
from tasks.lanes import WORKERS, Lane
from tasks.timetable import Every
from teg.domain.backoff import Backoff

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "queue.md").read_text()
COLUMNS = [
    "task",
    "lane",
    "retry",
    "expires",
    "priority",
    "arguments",
    "enqueued by",
    "twice is safe:",
    "lost is safe:",
]


def tables(header: list[str]) -> list[dict[str, str]]:
    """The rows of every table with exactly this header."""
    found: list[dict[str, str]] = []
    inside = False
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if cells == header:
            inside = True
        elif not cells:
            inside = False
        elif inside and not set("".join(cells)) <= {"-"}:
            found.append(dict(zip(header, cells, strict=True)))
    return found


DOCUMENTED = {row["task"].strip("`"): row for row in tables(COLUMNS)}
#: Tests register tasks of their own; the product's are those of the room `tasks`.
REGISTERED: dict[str, Any] = {
    key.rpartition(".")[2]: task_class
    for key, task_class in gateway.huey._registry._registry.items()
    if key.startswith("tasks.") and not getattr(task_class.execute, "__module__", "").startswith("tests.")
}


def body(name: str) -> Any:
    module = importlib.import_module(REGISTERED[name].__module__)
    return getattr(module, name).func.__wrapped__


def retry_text(retry: Backoff | None) -> str:
    return f"{retry.first_s:g} s → {retry.cap_s:g} s" if retry else "–"


def arguments_text(name: str) -> str:
    """As written in the signature; "trigger" when there are none."""
    parameters = inspect.signature(body(name)).parameters.values()
    shown = ", ".join(f"{one.name}: {inspect.formatannotation(one.annotation)}" for one in parameters)
    return f"`{shown.replace('typing.', '')}`" if shown else "trigger"


def test_every_task_is_on_the_page_and_no_other() -> None:
    assert set(DOCUMENTED) == set(REGISTERED)


def test_no_two_tasks_share_a_name() -> None:
    """Triggers are counted by name alone, whatever module they are in."""
    product = [key for key in gateway.huey._registry._registry if key.startswith("tasks.")]
    assert len({key.rpartition(".")[2] for key in product}) == len(product)


@pytest.mark.parametrize("name", sorted(REGISTERED))
def test_the_row_says_what_the_code_does(name: str) -> None:
    task_class, row = REGISTERED[name], DOCUMENTED[name]
    expires = task_class.default_expires
    assert row["lane"] == task_class.lane
    assert row["retry"] == retry_text(task_class.retry_policy)
    assert row["expires"] == (f"{expires} s" if expires else "–")
    assert row["priority"] == str(task_class.default_priority)
    assert row["arguments"] == arguments_text(name)


@pytest.mark.parametrize("name", sorted(DOCUMENTED))
@pytest.mark.parametrize("column", ["enqueued by", "twice is safe:", "lost is safe:"])
def test_the_reasons_are_given(name: str, column: str) -> None:
    assert len(DOCUMENTED[name][column].split()) >= 2


def test_what_has_no_retry_says_what_finds_it_again() -> None:
    for name, row in DOCUMENTED.items():
        if row["retry"] == "–":
            assert len(row["lost is safe:"].split()) >= 5, name


def test_the_timetable_is_told_with_its_intervals() -> None:
    known = {
        "every 1 s": 1,
        "every 2 s": 2,
        "30 s and sooner": 1,
        "5 s": 5,
        "every 10 s": 10,
        "20 s": 20,
        "every minute": 60,
        "10 min": 600,
        "every hour": 3600,
    }
    told = {
        name: [seconds for words, seconds in known.items() if words in row["enqueued by"]]
        for name, row in DOCUMENTED.items()
        if "the timetable" in row["enqueued by"]
    }
    entries: tuple[Every, ...] = gateway.huey.timetable
    assert told == {entry.task.task_class.__name__: [entry.interval_s] for entry in entries}


def test_the_lanes_and_their_workers() -> None:
    rows = tables(["lane", "workers", "for"])
    assert {row["lane"]: int(row["workers"]) for row in rows} == {str(lane): WORKERS[lane] for lane in Lane}


def test_the_number_of_workers_in_the_architecture() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    assert re.findall(r"\| (\d+) workers \|", page) == [str(sum(WORKERS.values()))]
    assert re.findall(r"starts (\w+) workers", page) == [str(sum(WORKERS.values()))]
