"""`teg status`: is it running, is data on its way, and if not, why not."""

import json
import time
from collections.abc import Mapping
from typing import Any

import click

from teg.console.health import Trouble, troubles
from teg.console.opening import ask_gateway, is_readable, is_running, open_archive, open_settings
from teg.console.wording import age, harmless, moment, size
from teg.domain.errors import Unavailable
from teg.settings import Settings

#: Exit codes, the worse the higher: it runs and has trouble; it does not run, or hangs.
TROUBLED, DOWN = 1, 2
WATCH_EVERY_S = 2.0
#: Two looks at the backlog, this far apart, give its forecast.
FORECAST_S = 1.0
#: Lines of a controller that has ended.
LAST_WORDS = 3


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of lines.")
@click.option("--watch", is_flag=True, help="Show it again every two seconds, until Ctrl-C.")
@click.option("--alive", is_flag=True, help="Say nothing, exit 0 while the gateway runs and answers (HEALTHCHECK).")
def status(as_json: bool, watch: bool, alive: bool) -> None:
    """Is it running, and is data on its way to the server?

    Exits with 0 when all is well, 1 when the gateway runs and has trouble, 2 when it does not run or hangs.
    """
    settings = open_settings(server_needed=False)
    if alive:
        raise SystemExit(look(settings)["running"] != "yes")
    while watch:
        click.clear()
        show(look(settings), as_json)
        time.sleep(WATCH_EVERY_S)
    report = look(settings)
    if report.get("archive", {}).get("pending"):
        report["forecast_s"] = forecast_s(settings, report)
    show(report, as_json)
    raise SystemExit(DOWN if report["running"] != "yes" else TROUBLED if report["trouble"] else 0)


def look(settings: Settings) -> dict[str, Any]:
    """The gateway's own account, or what can be told without one; `running` is yes, no, starting or hangs."""
    try:
        found = ask_gateway(settings.data_path)
    except Unavailable as reason:
        return _without_gateway(settings, "hangs", Trouble(str(reason), "systemctl restart teg"))
    if found is not None:
        trouble = [str(each) for each in troubles(found)]
        return {**found, **_places(settings), "running": "yes", "trouble": trouble}
    if is_running(settings.data_path):
        return _without_gateway(settings, "starting", Trouble("the gateway is starting or stopping", "see its log"))
    return _without_gateway(settings, "no", Trouble("the gateway does not run", "systemctl start teg, or teg run"))


def _without_gateway(settings: Settings, running: str, trouble: Trouble) -> dict[str, Any]:
    report: dict[str, Any] = {"running": running, **_places(settings), "trouble": [str(trouble)]}
    report["now_ms"] = time.time_ns() // 1_000_000
    if is_readable(settings.data_path / "gateway.db"):
        with open_archive(settings) as archive:
            report["archive"] = archive.counts()
    return report


def _places(settings: Settings) -> dict[str, str]:
    """Where the data are; and where they were, after a change-over from one directory for all."""
    moved = {"moved_out_of": str(settings.shared_before)} if settings.shared_before else {}
    return {"data_path": str(settings.data_path), **moved}


def forecast_s(settings: Settings, report: Mapping[str, Any]) -> float | None:
    """When the backlog will be gone at today's pace; None while it does not shrink."""
    before = report["archive"]["pending"]
    time.sleep(FORECAST_S)
    left = look(settings).get("archive", {}).get("pending", before)
    return left / (before - left) * FORECAST_S if left < before else None


def show(report: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(as_json_object(report)))
        return
    for line in status_lines(report):
        click.echo(line)


def as_json_object(report: Mapping[str, Any]) -> dict[str, Any]:
    """`running` is true or false, `state` says it more exactly; the counts of the archive stand on top, too."""
    return {**report.get("archive", {}), **report, "running": report["running"] == "yes", "state": report["running"]}


def status_lines(report: Mapping[str, Any]) -> list[str]:
    """Trouble first: whoever looks has a reason."""
    now_ms = report["now_ms"]
    lines = [f"trouble      {text}" for text in report["trouble"]]
    lines.append(f"gateway      {_gateway(report)}")
    if moved := report.get("moved_out_of"):
        lines.append(f"data moved   out of {moved}, which the controller sees, to {report['data_path']}")
    if "connection" in report:
        lines.append(f"server       {_server(report['connection'], now_ms)}")
        lines.append(f"controller   {_controller(report['controller'], report.get('heartbeat', {}), now_ms)}")
        lines += [f"last words   {harmless(line)}" for line in _last_words(report["controller"])]
    if "error" not in report.get("archive", {"error": ""}):
        lines += _records(report["archive"], report.get("forecast_s"), now_ms)
    delivery = report.get("delivery", {})
    lines += [f"link         {link_text(delivery['link'])}"] if "link" in delivery else []
    lines += [f"card         {card_text(delivery['flash'])}"] if "flash" in delivery else []
    if "total_bytes" in report.get("disk", {}):
        lines.append(f"disk         {size(report['disk']['free_bytes'])} of {size(report['disk']['total_bytes'])} free")
    lines += [f"log          {harmless(line)}" for line in report.get("last_trouble", [])[-3:]]
    return lines


def link_text(link: Mapping[str, Any]) -> str:
    """Of the month, so far and at its end."""
    used = f"{megabytes(link['sent_bytes'] + link['received_bytes'])} this month"
    forecast = "" if link["forecast_bytes"] is None else f", {megabytes(link['forecast_bytes'])} at its end"
    budget = "" if link["budget_bytes"] is None else f" of {megabytes(link['budget_bytes'])}"
    waits = f"; records are gathered for {link['gathering_s']:.0f} s" if link["gathering_s"] else ""
    return used + forecast + budget + waits


def card_text(flash: Mapping[str, Any]) -> str:
    if flash["per_day_bytes"] is None:
        return "what is written is not known yet"
    budget = "" if flash["budget_bytes"] is None else f" of {megabytes(flash['budget_bytes'])}"
    years = "" if flash["card_years"] is None else f", a card lasts about {flash['card_years']:.0f} years with that"
    waits = f"; records wait {flash['commit_s']:.0f} s to be archived together" if flash["commit_s"] else ""
    return f"{megabytes(flash['per_day_bytes'])} written a day{budget}{years}{waits}"


def megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1_000_000:.1f} MB"


def _gateway(report: Mapping[str, Any]) -> str:
    words = {"yes": "running", "no": "NOT RUNNING", "starting": "STARTING OR STOPPING", "hangs": "HANGS"}
    since = f", for {age(report['uptime_s'])}" if "uptime_s" in report else ""
    return f"{words[report['running']]}{since} ({report['data_path']})"


def _server(link: Mapping[str, Any], now_ms: int) -> str:
    if link["connected"]:
        before = f"; before that: {harmless(link['last_end'])}" if link["last_end"] else ""
        return f"connected since {moment(link['since_ms'])} ({age((now_ms - link['since_ms']) / 1000)}){before}"
    next_try = "now" if link["next_try_ms"] is None else f"in {age((link['next_try_ms'] - now_ms) / 1000)}"
    return f"NOT CONNECTED: {harmless(link['last_end']) or 'connecting'}; next try {next_try}"


def _last_words(controller: Mapping[str, Any]) -> list[str]:
    """Of a controller that does not run: why is mostly said in its last line."""
    words = [str(line) for line in controller.get("controller_last_words", []) if str(line).strip()]
    return [] if controller.get("controller_state") == "running" else words[-LAST_WORDS:]


def _controller(controller: Mapping[str, Any], heartbeat: Mapping[str, Any], now_ms: int) -> str:
    if "error" in controller:
        return harmless(controller["error"])
    parts = [str(controller.get("controller_state", "unknown"))]
    if version := controller.get("controller_version"):
        parts.append(f"version {harmless(str(version))}")
    if exit_ms := controller.get("controller_last_exit_ms"):
        parts.append(f"last ended {moment(exit_ms)}: {harmless(str(controller['controller_last_exit_reason']))}")
    last_ms = heartbeat.get("last_ms")
    parts.append("no heartbeat yet" if last_ms is None else f"heartbeat {age((now_ms - last_ms) / 1000)} ago")
    return ", ".join(parts)


def _records(archive: Mapping[str, Any], forecast: float | None, now_ms: int) -> list[str]:
    oldest = archive.get("oldest_pending_ts")
    waiting = "" if oldest is None else f", the oldest from {age((now_ms - oldest) / 1000)} ago"
    soon = "" if forecast is None else f", gone in about {age(forecast)}"
    return [
        f"accepted     {archive['accepted']}",
        f"delivered    {archive['delivered']}",
        f"on the way   {archive['pending']}{waiting}{soon}",
        f"republishing {archive['republish_pending']}",
        f"held back    {archive['held']}" + (" (TEG_REPORT; the archive has them)" if archive["held"] else ""),
        f"set aside    {archive['dead_letters']} (teg dead-letters)",
        f"evicted      {archive['evicted']}",
    ]
