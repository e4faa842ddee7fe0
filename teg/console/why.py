"""`teg why ID`: the life of a record, a call or an update, step by step, and what it waits for now."""

import datetime
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import click

from teg.adapters.gateway_db.database import Database
from teg.adapters.gateway_db.maintenance import ArchiveMaintenance
from teg.adapters.gateway_db.rpc_journal import KEPT_EFFECTS, KEPT_QUICK, RpcJournalTable
from teg.adapters.gateway_db.state import StateTable
from teg.adapters.gateway_db.traces import Proofs, RecordTrace, Traces
from teg.console.health import troubles
from teg.console.opening import ask_gateway, is_readable, open_settings
from teg.console.wording import harmless, moment
from teg.domain.errors import Unavailable
from teg.domain.ota.store import JOB_KEY, STEPS_KEY
from teg.domain.rpc.journal import Entry, State
from teg.domain.telemetry.ports import Stream

KINDS = ("record", "row", "call", "letter", "update")
LINES = {
    Stream.OWN: "the gateway's own reports",
    Stream.DATA: "what is on its way",
    Stream.REPUBLISH: "what is sent again on request",
}
CALLS = {
    State.BEGUN: "was begun, and has no end yet",
    State.ANSWERED: "answered; the server has not acknowledged the answer",
    State.ACKNOWLEDGED: "answered, and the server has the answer",
    State.ACTED: "answered; what was asked for was begun after the server had the answer",
    State.INTERRUPTED: "interrupted: the gateway ended meanwhile, and it is not done again",
    State.UNDELIVERED: "done, but the answer could not be delivered",
    State.DONE: "answered",
}


@click.command()
@click.argument("name", metavar="ID")
def why(name: str) -> None:
    """The life of a record, a call or an update, step by step.

    ID is a record's number, an inbox row's, a call's or a dead letter's (all that have it are told; record:17, row:17,
    call:17 or letter:17 for one of them), a time stamp (Unix milliseconds, or 2026-01-31T12:00:00.123) of a record, or
    the version of an update (or update:2 where it looks like a number).
    """
    settings = open_settings(server_needed=False)
    path = settings.data_path / "gateway.db"
    if not is_readable(path):
        raise click.ClickException(f"there is no {path}: the gateway has not run with these settings yet")
    database = Database(path, read_only=True)
    try:
        told = list(Lives(database).of(name))
    except Unavailable as reason:
        raise click.ClickException(str(reason)) from reason
    finally:
        database.close()
    for line in told:
        click.echo(line)
    if not told:
        raise click.ClickException(f"nothing is known of '{harmless(name)}'")
    if any("waits" in line for line in told):
        for trouble in _troubles(settings.data_path):
            click.echo(f"in the way: {trouble}")


def _troubles(data_path: Any) -> list[str]:
    try:
        report = ask_gateway(data_path)
    except Unavailable as reason:
        return [str(reason)]
    if report is None:
        return ["the gateway does not run; systemctl start teg"]
    return [*map(str, troubles(report)), *(harmless(f"{task}: {text}") for task, text in report["troubles"].items())]


class Lives:
    """Each method yields the lines about one kind of thing; none when there is no such thing."""

    def __init__(self, database: Database) -> None:
        self._traces = Traces(database)
        self._archive = ArchiveMaintenance(database)
        self._calls = RpcJournalTable(database)
        self._state = StateTable(database)

    def of(self, name: str) -> Iterator[str]:
        kind, _, rest = name.partition(":")
        if kind in KINDS and rest:
            yield from self._of_kind(kind, rest)
        elif (ts_ms := _time_ms(name)) is not None:
            yield from self._records(self._traces.records_at(ts_ms))
        elif name.lstrip("#").isdigit():
            kinds = ("letter",) if name.startswith("#") else ("record", "row", "call", "letter")
            for kind in kinds:
                yield from self._of_kind(kind, name.lstrip("#"))
        else:
            yield from self.update(name)

    def _of_kind(self, kind: str, name: str) -> Iterator[str]:
        if kind == "update":
            yield from self.update(name)
            return
        if not re.fullmatch(r"\d{1,18}", name):
            raise click.ClickException(f"'{harmless(name)}' is no number")
        yield from {"record": self.record, "row": self.row, "call": self.call, "letter": self.letter}[kind](int(name))

    # --- a record

    def record(self, record_id: int) -> Iterator[str]:
        trace = self._traces.record(record_id)
        if trace is not None:
            yield from _record_lines(trace, self._traces.proofs(), self._traces.report_rules())
        elif record_id <= self._traces.last_record():
            yield f"record {record_id} is not kept any more"
            yield "  it was a log line or a report and is delivered, was discarded or set aside, or had to make room"

    def _records(self, ids: Sequence[int]) -> Iterator[str]:
        for record_id in ids:
            yield from self.record(record_id)

    def row(self, inbox_row: int) -> Iterator[str]:
        """Ids come again in an inbox that was made anew: the newest first."""
        yield from self._records(self._traces.records_of_row(inbox_row))
        for letter in self._traces.letters_of_row(inbox_row):
            yield from self.letter(letter)

    def letter(self, letter_id: int) -> Iterator[str]:
        found = self._archive.dead_letter(letter_id)
        if found is None:
            return
        yield f"dead letter #{letter_id}, from inbox row {found['inbox_row']}: not sent"
        yield f"  {moment(found['set_aside_ms'])}  set aside: {harmless(found['reason'])}"
        yield f"  it stays: teg dead-letters show, retry or drop {letter_id}"

    # --- a call

    def call(self, request_id: int) -> Iterator[str]:
        """The server begins to count anew when it restarts: several may have the same number."""
        for entry in self._calls.recent(KEPT_EFFECTS + KEPT_QUICK):
            if entry.key.request_id == request_id:
                yield from _call_lines(entry)

    # --- an update

    def update(self, version: str) -> Iterator[str]:
        steps = [step for step in self._state.get(STEPS_KEY) or [] if step[0:2] and step[1] == version]
        if steps:
            yield f"update to {harmless(version)}"
        for when_ms, _, running, state, error in steps:
            yield f"  {moment(when_ms)}  {state}, {harmless(running)} runs" + (f": {harmless(error)}" if error else "")
        job = self._state.get(JOB_KEY) or {}
        if (job.get("assignment") or {}).get("version") == version:
            again = f", waits until {moment(job['retry_at_ms'])} for its next attempt" if job.get("retry_at_ms") else ""
            yield f"  now: {job['phase']}{again}"


def _time_ms(text: str) -> int | None:
    """Numbers of 12 and more digits are time stamps, shorter ones ids."""
    if re.fullmatch(r"\d{12,15}", text):
        return int(text)
    try:
        found = datetime.datetime.fromisoformat(text) if "-" in text and "T" in text else None
    except ValueError:
        return None
    return None if found is None else round(found.replace(tzinfo=found.tzinfo or datetime.UTC).timestamp() * 1000)


def _record_lines(trace: RecordTrace, proofs: Proofs, rules: str) -> Iterator[str]:
    yield f"record {trace.id}  {harmless(trace.message, 200)}"
    yield f"  {moment(trace.ts_ms)}  is its time stamp"
    if trace.inbox_row is not None:
        yield f"  taken from row {trace.inbox_row} of the controller's inbox, and archived"
    else:
        yield "  made by the gateway itself, or taken over from an earlier one"
    if trace.set_right:
        yield "  what the server would have distorted was set right for sending (docs/telemetry.md)"
    for lane, before in trace.waiting.items():
        yield f"  waits among {LINES[lane]}; {before} before it"
    if not trace.waiting:
        yield f"  {_stored(trace, proofs, rules)}"
    if trace.transient:
        yield "  it is a log line or a report: not kept when it is delivered"


def _stored(trace: RecordTrace, proofs: Proofs, rules: str) -> str:
    if trace.proven_mark is not None and trace.unproven_mark is None:
        return f"acknowledged, and proven to be in the server's database (watermark {trace.proven_mark})"
    if trace.connection_ended:
        return "acknowledged on a connection that ended before the server had proven to have stored it"
    if trace.unproven_mark is not None:
        return f"acknowledged, and waits to be proven stored by a watermark after {trace.unproven_mark}"
    if rules and not trace.transient:
        return f"held back by TEG_REPORT ({harmless(rules)}), or delivered without a proof that is still known"
    if proofs.given is False:
        return "acknowledged; this server gives no proof that it stores anything"
    return "delivered"


def _call_lines(entry: Entry) -> Iterator[str]:
    yield f"call {entry.key.request_id}  {harmless(entry.key.method)} {harmless(entry.params, 200)}"
    yield f"  {moment(entry.received_ms)}  received"
    took = "" if entry.duration_ms is None else f" after {entry.duration_ms} ms"
    yield f"  {CALLS[entry.state]}{took}"
    if entry.answer is not None:
        yield f"  answer: {harmless(_plain(entry.answer))}"


def _plain(answer: str) -> str:
    try:
        found = json.loads(answer)
    except json.JSONDecodeError:
        return answer
    return found if isinstance(found, str) else answer
