"""The answer to `status`: how the gateway is, on one screen, also while half of it does not work."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from teg.domain.errors import Refused, Unavailable
from teg.domain.ports import Clock, Controller, Heartbeat, Session
from teg.domain.rpc.log_level import LogLevel
from teg.domain.rpc.ports import ArchiveControl, LogRing, Machine
from teg.domain.server import LinkHistory

LAST_ERRORS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusSources:
    """`versions` names what runs (gateway, python, huey, …); `started_s` is the clock's uptime at our start."""

    versions: Mapping[str, str]
    started_s: float
    session: Session
    link: Callable[[], LinkHistory]
    archive: ArchiveControl
    controller: Controller
    machine: Machine
    log: LogRing
    log_level: LogLevel
    clock: Clock
    #: How the way to the server is: what it carries, what is proven stored, what is in the way.
    delivery: Callable[[], Mapping[str, Any]]
    #: Tasks that cannot do their work, each with its reason.
    troubles: Callable[[], Mapping[str, str]]
    #: Why the controller's inbox cannot be read, empty while it can.
    inbox_trouble: Callable[[], str] = str


def status(sources: StatusSources) -> dict[str, Any]:
    """Never fails: a part that cannot be read now holds `{"error": why}` instead."""
    return {
        "versions": dict(sources.versions),
        "now_ms": sources.clock.now_ms(),
        "uptime_s": int(sources.clock.monotonic_s() - sources.started_s),
        "host_uptime_s": int(sources.clock.monotonic_s()),
        "connection": _connection(sources),
        "delivery": _or_error(lambda: _delivery(sources)),
        "inbox": {"trouble": sources.inbox_trouble()},
        "archive": _or_error(lambda: _backlog(sources)),
        "disk": _or_error(lambda: _disk(sources.machine)),
        "controller": _or_error(lambda: dict(sources.controller.summary())),
        "troubles": dict(sources.troubles()),
        "log_level": sources.log_level.current,
        "last_errors": sources.log.recent(LAST_ERRORS, logging.ERROR),
    }


def local_status(sources: StatusSources, heartbeat: Heartbeat) -> bytes:
    """The same for the console on this machine, and what only it shows: trouble, and the controller's heartbeat."""
    return orjson.dumps(
        {
            **status(sources),
            "heartbeat": _or_error(lambda: {"last_ms": heartbeat.last_heartbeat_ms()}),
            "last_trouble": sources.log.recent(LAST_ERRORS, logging.WARNING),
        },
        option=orjson.OPT_NON_STR_KEYS,
    )


def _connection(sources: StatusSources) -> dict[str, Any]:
    """`since_ms` of this connection, or of the time without one; `next_try_ms` while there is none."""
    link, clock = sources.link(), sources.clock

    def wall_ms(reading_s: float | None) -> int | None:
        return None if reading_s is None else round(clock.now_ms() + (reading_s - clock.monotonic_s()) * 1000)

    return {
        "connected": sources.session.connected,
        "sessions": sources.session.epoch,
        "since_ms": wall_ms(link.since_s),
        "last_end": link.reason,
        "next_try_ms": wall_ms(link.next_try_s),
        "shared_token": link.shared_token,
    }


def _backlog(sources: StatusSources) -> dict[str, Any]:
    counts = dict(sources.archive.counts())
    oldest_ms = counts.get("oldest_pending_ts")
    if oldest_ms is not None:
        counts["oldest_pending_age_s"] = max(0, (sources.clock.now_ms() - oldest_ms) // 1000)
    return counts


def _delivery(sources: StatusSources) -> dict[str, Any]:
    """`backlog_ends_in_s` is an estimate from the last half minute; None while nothing moves."""
    delivery = dict(sources.delivery())
    counts = sources.archive.counts()
    waiting = counts.get("pending", 0) + counts.get("republish_pending", 0)
    per_s = delivery.get("backlog_rows_per_s") or delivery.get("rows_per_s")
    delivery["backlog_ends_in_s"] = round(waiting / per_s) if waiting and per_s else None if waiting else 0
    return delivery


def _disk(machine: Machine) -> dict[str, Any]:
    total, free = machine.disk()
    return {"total_bytes": total, "free_bytes": free}


def _or_error(read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return read()
    except (Unavailable, Refused) as reason:
        return {"error": str(reason)}
