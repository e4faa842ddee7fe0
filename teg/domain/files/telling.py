"""Tells the server what is on disk: the differences to what it was told last, remembered over restarts."""

from collections.abc import Callable, Mapping
from typing import Any

from teg.domain.files.reports import (
    FILE_HASHES,
    FILES_ERROR,
    READ,
    Look,
    Told,
    encode_read,
    gone,
    plan_errors,
    plan_hashes,
    sayable,
)
from teg.domain.ports import Clock, Report, State

#: After our own report the server's FILE_HASHES may be older than what is on its way to it.
REPORT_TRAVEL_S = 5.0

_TOLD = "files/told"
_PROBLEM = "files/problem"


class Telling:
    """A report is remembered as told only after it is durable, so a crash tells something twice, never not at all."""

    def __init__(self, report: Report, state: State, clock: Clock) -> None:
        self._report = report
        self._state = state
        self._clock = clock
        self._told = Told()
        self._told_s = float("-inf")

    def load(self) -> None:
        self._told = Told.of(self._state.get(_TOLD))

    def heard(self, hashes: Any, asked_s: float) -> None:
        """Compare with what the server has, unless our last report may still have been on its way when we asked."""
        if asked_s >= self._told_s + REPORT_TRAVEL_S or self._told.hashes is None:
            self._told.heard(hashes)

    def forget(self) -> None:
        """RPC `init_files`: as if the server knew nothing."""
        self._report.attributes({FILE_HASHES: {}})
        self._told = Told()
        self._state.put(_TOLD, {})

    def definitions(self, problem: str) -> None:
        """Say what is wrong with `FILES` as a whole, "" when nothing is."""
        if (self._state.get(_PROBLEM) or "") != problem:
            self._report.attributes({FILES_ERROR: sayable(problem)})
            self._state.put(_PROBLEM, problem)

    def tell(self, looks: Mapping[str, Look], errors: Mapping[str, str], read: Callable[[Look], Look | None]) -> None:
        """Report the differences. `read` returns a look with its content, None when the file cannot be read now."""
        news = {key: read(look) for key, look in looks.items() if self._told.reads.get(key) != look.token}
        fresh = {key: look for key, look in news.items() if look is not None}
        looks = {key: fresh.get(key, look) for key, look in looks.items() if key in fresh or key not in news}
        reads = {key: look.token for key, look in looks.items()}
        errors = {key: sayable(text) for key, text in errors.items()}
        hashes = plan_hashes(looks)
        values: dict[str, Any] = dict(plan_errors(self._told.errors, errors))
        values |= {READ + key: encode_read(look) for key, look in fresh.items()}
        values |= {READ + key: "" for key in gone(self._told, looks)}
        if hashes != self._told.hashes:
            values[FILE_HASHES] = hashes
        if values:
            self._report.attributes(values)
            self._told, self._told_s = Told(hashes, reads, errors), self._clock.monotonic_s()
            self._state.put(_TOLD, {"hashes": hashes, "reads": reads, "errors": errors})
