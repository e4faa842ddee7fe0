"""What the conformance tests saw, row by row: on the screen, as Markdown, and as JSON for programs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

import pytest

Verdict = Literal["holds", "differs", "observed", "not checked"]


@dataclass(frozen=True, slots=True)
class Row:
    group: str
    statement: str
    expected: str
    seen: str
    verdict: Verdict


class Report:
    """Of one test. Its rows travel with the test's report, so that they arrive from every process of a run."""

    def __init__(self, group: str, rows: list[tuple[str, Any]], lacks_nothing: bool) -> None:
        self._group = group
        self._rows = rows
        self._lacks_nothing = lacks_nothing

    def check(self, statement: str, expected: Any, seen: Any) -> None:
        holds = type(expected) is type(seen) and bool(expected == seen)
        self._add(statement, repr(expected), repr(seen), "holds" if holds else "differs")
        assert holds, f"{statement}: expected {expected!r}, seen {seen!r}"

    def observe(self, statement: str, seen: Any) -> None:
        """Where the server promises nothing: what this one did."""
        self._add(statement, "either", repr(seen), "observed")

    def not_checked(self, statement: str, why: str) -> NoReturn:
        """End the test here: this server has nothing that could be asked. The stand-in has everything."""
        self._add(statement, "", why, "not checked")
        if self._lacks_nothing:
            pytest.fail(f"{statement}: not checked: {why}")
        pytest.skip(f"{statement}: {why}")

    def _add(self, statement: str, expected: str, seen: str, verdict: Verdict) -> None:
        row = Row(self._group, statement, expected[:400], seen[:400], verdict)
        self._rows.append(("conformance", asdict(row)))


class Collected:
    """The rows of a whole run."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def add(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        if report.when == "teardown":  # the same rows once more
            rows: list[Row] = []
        else:
            rows = [row_of(value) for name, value in report.user_properties if name == "conformance"]
        if report.failed and not any(row.verdict == "differs" for row in rows):
            rows.append(_unexpected(report))
        self.rows += rows

    def count(self, verdict: Verdict) -> int:
        return sum(row.verdict == verdict for row in self.rows)

    @property
    def summary(self) -> str:
        counts = ", ".join(f"{self.count(verdict)} {verdict}" for verdict in ("differs", "observed", "not checked"))
        return f"{len(self.rows)} statements, {counts}".replace("differs", "differ")

    def write(self, place: Path, about: Mapping[str, Any], unseen: Mapping[str, str]) -> list[Path]:
        place.parent.mkdir(parents=True, exist_ok=True)
        files = [place.with_name(place.name + suffix) for suffix in (".md", ".json")]
        files[0].write_text(self._markdown(about, unseen), encoding="utf-8")
        body = {**about, "statements": [asdict(row) for row in self.rows], "not_seen_from_outside": dict(unseen)}
        files[1].write_text(json.dumps(body, indent=1, ensure_ascii=False), encoding="utf-8")
        return files

    def _markdown(self, about: Mapping[str, Any], unseen: Mapping[str, str]) -> str:
        lines = ["# Conformance", "", *(f"- {name}: {value}" for name, value in about.items()), "", self.summary]
        for group in dict.fromkeys(row.group for row in self.rows):
            rows = [(row.statement, row.expected, row.seen, row.verdict) for row in self.rows if row.group == group]
            lines += ["", f"## {group}", "", *_table(("statement", "expected", "seen", ""), rows)]
        lines += ["", "## Not seen from outside", "", *_table(("statement", "why"), list(unseen.items()))]
        return "\n".join(lines) + "\n"


def row_of(value: Any) -> Row:
    return Row(**value)


def _unexpected(report: pytest.TestReport) -> Row:
    """A test that ended otherwise than by a statement, such as by an answer that never came."""
    said = [line[1:].strip() for line in report.longreprtext.splitlines() if line.startswith("E ")]
    test = report.nodeid.rpartition("::")[2]
    group = Path(report.nodeid.partition("::")[0]).stem.removeprefix("test_")
    return Row(group, test.replace("_", " "), "as the test says", (said or ["failed"])[0][:400], "differs")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [_line(head), _line(["---"] * len(head))]
    return lines + [_line(row) for row in rows]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |"
