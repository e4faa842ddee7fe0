"""The gateway's numbers in the text format of OpenMetrics 1.0, for Prometheus and its kin."""

from collections.abc import Iterator, Mapping
from typing import Any

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"

#: name, type, help, where in the picture's `status`; a number that is not there is left out.
NUMBERS = (
    ("teg_uptime_seconds", "gauge", "Seconds since the gateway started.", ("uptime_s",)),
    ("teg_connected", "gauge", "1 while there is a session with the server.", ("connection", "connected")),
    ("teg_sessions", "counter", "Sessions with the server since the start.", ("connection", "sessions")),
    ("teg_records_accepted", "gauge", "Records accepted, durable on the device.", ("archive", "accepted")),
    ("teg_records_delivered", "counter", "Records that the server acknowledged.", ("archive", "delivered")),
    ("teg_records_stored", "gauge", "Of these, proven to be in the server's database.", ("archive", "stored")),
    ("teg_records_held", "counter", "Records that TEG_REPORT held back.", ("archive", "held")),
    ("teg_records_evicted", "counter", "Records that went for want of room.", ("archive", "evicted")),
    ("teg_records_lost", "counter", "Records lost with a damaged database.", ("archive", "lost")),
    ("teg_records_pending", "gauge", "Records on their way to the server.", ("archive", "pending")),
    ("teg_records_republishing", "gauge", "Records on their way once more.", ("archive", "republish_pending")),
    ("teg_dead_letters", "gauge", "Records set aside, waiting for a decision.", ("archive", "dead_letters")),
    ("teg_backlog_age_seconds", "gauge", "Age of the oldest record waiting.", ("archive", "oldest_pending_age_s")),
    ("teg_link_sent_bytes", "gauge", "Sent this month, TLS and IP included.", ("delivery", "link", "sent_bytes")),
    ("teg_link_received_bytes", "gauge", "Received this month.", ("delivery", "link", "received_bytes")),
    ("teg_link_forecast_bytes", "gauge", "Both at the month's end.", ("delivery", "link", "forecast_bytes")),
    ("teg_written_per_day_bytes", "gauge", "Written to disks a day.", ("delivery", "flash", "per_day_bytes")),
    ("teg_disk_free_bytes", "gauge", "Room on the disk of the data.", ("disk", "free_bytes")),
    ("teg_disk_total_bytes", "gauge", "Size of the disk of the data.", ("disk", "total_bytes")),
    (
        "teg_controller_restarts",
        "gauge",
        "Times the controller was started again.",
        ("controller", "controller_restarts"),
    ),
)


def open_metrics(picture: Mapping[str, Any], published: tuple[int, float], published_bytes: int) -> str:
    """`published`: acknowledged publishes and the seconds they took together."""
    status = picture["status"]
    lines = [line for name, kind, text, path in NUMBERS for line in _family(name, kind, text, _at(status, path))]
    lines += _family("teg_troubles", "gauge", "Things that somebody should look at.", len(picture["trouble"]))
    lines += _family("teg_published_bytes", "counter", "Bytes of acknowledged telemetry.", published_bytes)
    running = status.get("controller", {}).get("controller_state") == "running"
    lines += _family("teg_controller_running", "gauge", "1 while the controller runs.", running)
    lines += _heartbeat(status)
    lines += [
        "# TYPE teg_publish_latency_seconds summary",
        "# HELP teg_publish_latency_seconds From publish to PUBACK.",
        f"teg_publish_latency_seconds_count {published[0]}",
        f"teg_publish_latency_seconds_sum {published[1]:.6f}",
        "# TYPE teg_build info",
        "# HELP teg_build Versions.",
        f"teg_build_info{{{_labels(status.get('versions', {}))}}} 1",
        "# EOF",
    ]
    return "\n".join(lines) + "\n"


def _family(name: str, kind: str, text: str, value: Any) -> Iterator[str]:
    if not isinstance(value, int | float):
        return
    yield f"# TYPE {name} {kind}"
    yield f"# HELP {name} {text}"
    yield f"{name}{'_total' if kind == 'counter' else ''} {float(value):.17g}"


def _heartbeat(status: Mapping[str, Any]) -> Iterator[str]:
    last_ms = status.get("heartbeat", {}).get("last_ms")
    age_s = None if last_ms is None else max(0.0, (status["now_ms"] - last_ms) / 1000)
    return _family("teg_heartbeat_age_seconds", "gauge", "Since the controller's last sign of life.", age_s)


def _at(status: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    found: Any = status
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _labels(versions: Mapping[str, str]) -> str:
    names = {name.replace("-", "_"): value for name, value in versions.items()}
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in sorted(names.items()))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
