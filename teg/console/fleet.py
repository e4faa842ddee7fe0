"""`teg fleet`: all gateways of a tenant in one table, as the server knows them."""

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import orjson

from teg.adapters.thingsboard_rest import ThingsBoardRest
from teg.console.wording import age, harmless
from teg.domain.errors import Refused, Unavailable

#: A gateway tells of itself; other devices have none of these.
OURS = frozenset({"teg_watermark", "controller_state", "sys_info"})
ATTRIBUTES = (
    *("active", "lastActivityTime", "current_sw_title", "current_sw_version", "sw_state", "sw_error", "troubles"),
    *OURS,
)
TELEMETRY = ("backlog_age_s", "dead_letters", "ms_since_last_controller_health_check")
#: An update or a heartbeat may take its time; what is older than this is said (seconds).
OLD_BACKLOG_S, SILENT_CONTROLLER_S = 3600, 7200
REQUESTS_AT_ONCE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """One line. Ages in seconds; None: the server knows nothing of it."""

    name: str
    connected: bool | None
    heard_s: float | None
    software: str
    update: str
    backlog_age_s: float | None
    dead_letters: int | None
    wrong: tuple[str, ...]


@click.command()
@click.option("--url", required=True, help="the server's web address, e.g. https://tb.example.org")
@click.option("--user", required=True, help="a tenant administrator")
@click.option("--password", envvar="TEG_SERVER_PASSWORD", help="default: asked for; or in TEG_SERVER_PASSWORD")
@click.option("--ca-cert", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--profile", default="", help="only devices of this profile")
@click.option("--wrong", "only_wrong", is_flag=True, help="only gateways with something to do about")
@click.option("--json", "as_json", is_flag=True)
def fleet(
    url: str, user: str, password: str | None, ca_cert: Path | None, profile: str, only_wrong: bool, as_json: bool
) -> None:
    """Show version, backlog and health of every gateway of a tenant, as the server knows them.

    Exit status 1 when something is wrong with one of them: a staged roll-out stops there (docs/fleet.md).
    """
    password = password or click.prompt(f"password of {user}", hide_input=True)
    try:
        with ThingsBoardRest(url, user, password, ca_cert) as rest:
            found = sorted(gateways(rest, profile), key=lambda each: each.name)
    except (Refused, Unavailable) as reason:
        raise click.ClickException(str(reason)) from reason
    shown = [each for each in found if each.wrong or not only_wrong]
    click.echo(orjson.dumps(list(map(asdict, shown))).decode() if as_json else "\n".join(table(shown, found)))
    raise SystemExit(1 if any(each.wrong for each in found) else 0)


def gateways(rest: ThingsBoardRest, profile: str = "") -> Iterator[Gateway]:
    """
    Raises:
        Refused: the user may not see the devices.
        Unavailable: no answer.
    """
    devices = [device for device in rest.pages("/api/tenant/devices") if profile in ("", device.get("type"))]
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
        for device, (attributes, telemetry) in zip(
            devices, pool.map(lambda device: _known(rest, device["id"]["id"]), devices), strict=True
        ):
            if OURS & attributes.keys():
                yield judged(device["name"], attributes, telemetry, time.time())


def _known(rest: ThingsBoardRest, identity: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Attributes of all scopes, and the newest values of the time series."""
    path = f"/api/plugins/telemetry/DEVICE/{identity}/values"
    attributes = rest.get(f"{path}/attributes", keys=",".join(ATTRIBUTES))
    newest = rest.get(f"{path}/timeseries", keys=",".join(TELEMETRY), useStrictDataTypes="true")
    return {each["key"]: each["value"] for each in attributes}, {key: points[0] for key, points in newest.items()}


def judged(name: str, attributes: Mapping[str, Any], telemetry: Mapping[str, Any], now_s: float) -> Gateway:
    """`attributes` and `telemetry` (key → {"ts": ms, "value": …}) as the server gives them."""
    activity = attributes.get("lastActivityTime")
    backlog, dead = _number(telemetry, "backlog_age_s"), _number(telemetry, "dead_letters")
    title, version = (attributes.get(f"current_sw_{each}") for each in ("title", "version"))
    connected = attributes.get("active")
    state = str(attributes.get("sw_state") or "")
    return Gateway(
        name=name,
        connected=connected if isinstance(connected, bool) else None,
        heard_s=now_s - activity / 1000 if type(activity) is int and activity else None,
        software=" ".join(str(part) for part in (title, version) if part),
        update=state,
        backlog_age_s=backlog,
        dead_letters=None if dead is None else int(dead),
        wrong=tuple(_wrong(connected, state, attributes, backlog, dead, telemetry, now_s)),
    )


def _wrong(
    connected: Any, state: str, attributes: Mapping[str, Any], backlog: float | None, dead: float | None,
    telemetry: Mapping[str, Any], now_s: float,
) -> Iterator[str]:  # fmt: skip
    if connected is False:
        yield "not connected"
    if state == "FAILED":
        yield f"update failed: {attributes.get('sw_error') or 'no reason given'}"
    silent_s = _silent_s(telemetry, now_s)
    if silent_s is not None and silent_s > SILENT_CONTROLLER_S:
        yield f"no heartbeat of the controller for {age(silent_s)}"
    if backlog is not None and backlog > OLD_BACKLOG_S:
        yield f"backlog of {age(backlog)}"
    if dead:
        yield f"{dead:.0f} dead letters"
    troubles = attributes.get("troubles")
    yield from (f"trouble: {each}" for each in (troubles if isinstance(troubles, list) else [troubles]) if each)


def _silent_s(telemetry: Mapping[str, Any], now_s: float) -> float | None:
    """The value was true when it was sent; it has grown since."""
    told_ms = _number(telemetry, "ms_since_last_controller_health_check")
    if told_ms is None:
        return None
    told_at_ms = float(telemetry["ms_since_last_controller_health_check"]["ts"])
    return told_ms / 1000 + max(0.0, now_s - told_at_ms / 1000)


def _number(telemetry: Mapping[str, Any], key: str) -> float | None:
    value = telemetry.get(key, {}).get("value")
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def table(shown: Sequence[Gateway], all_of_them: Sequence[Gateway]) -> Iterator[str]:
    head = ("gateway", "server", "software", "update", "backlog", "what is wrong")
    rows = [head, *(_row(each) for each in shown)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    for row in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
    wrong = sum(bool(each.wrong) for each in all_of_them)
    away = sum(each.connected is False for each in all_of_them)
    yield f"{len(all_of_them)} gateways, {away} not connected, {wrong} with something wrong"


def _row(gateway: Gateway) -> tuple[str, ...]:
    heard = "" if gateway.heard_s is None else f", heard {age(gateway.heard_s)} ago"
    server = {True: "connected", False: f"away{heard}", None: "?"}[gateway.connected]
    backlog = "?" if gateway.backlog_age_s is None else age(gateway.backlog_age_s)
    texts = (gateway.name, server, gateway.software or "?", gateway.update, backlog, "; ".join(gateway.wrong))
    return tuple(harmless(text, 80) for text in texts)
