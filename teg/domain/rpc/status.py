"""The answer to `status`: how the gateway is, on one screen, also while half of it does not work."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from teg.domain.errors import Refused, Unavailable
from teg.domain.ports import Clock, Controller, Session
from teg.domain.rpc.log_level import LogLevel
from teg.domain.rpc.ports import ArchiveControl, LogRing, Machine

LAST_ERRORS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusSources:
    """`versions` names what runs (gateway, python, huey, …); `started_s` is the clock's uptime at our start."""

    versions: Mapping[str, str]
    started_s: float
    session: Session
    archive: ArchiveControl
    controller: Controller
    machine: Machine
    log: LogRing
    log_level: LogLevel
    clock: Clock


def status(sources: StatusSources) -> dict[str, Any]:
    """Never fails: a part that cannot be read now holds `{"error": why}` instead."""
    return {
        "versions": dict(sources.versions),
        "now_ms": sources.clock.now_ms(),
        "uptime_s": int(sources.clock.monotonic_s() - sources.started_s),
        "host_uptime_s": int(sources.clock.monotonic_s()),
        "connection": {"connected": sources.session.connected, "sessions": sources.session.epoch},
        "archive": _or_error(lambda: _backlog(sources)),
        "disk": _or_error(lambda: _disk(sources.machine)),
        "controller": _or_error(lambda: dict(sources.controller.summary())),
        "log_level": sources.log_level.current,
        "last_errors": sources.log.recent(LAST_ERRORS, logging.ERROR),
    }


def _backlog(sources: StatusSources) -> dict[str, Any]:
    counts = dict(sources.archive.counts())
    oldest_ms = counts.get("oldest_pending_ts")
    if oldest_ms is not None:
        counts["oldest_pending_age_s"] = max(0, (sources.clock.now_ms() - oldest_ms) // 1000)
    return counts


def _disk(machine: Machine) -> dict[str, Any]:
    total, free = machine.disk()
    return {"total_bytes": total, "free_bytes": free}


def _or_error(read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return read()
    except (Unavailable, Refused) as reason:
        return {"error": str(reason)}
