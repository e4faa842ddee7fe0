"""From the gateway's account to what a person has to know: the trouble there is now, the worst first. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from teg.console.wording import age, harmless, size

#: A link that has been gone for less is nothing to report.
LINK_GRACE_S = 60
#: The limit after which the gateway restarts the controller is hours; a person wants to know before.
QUIET_CONTROLLER_S = 600
FULL_DISK_SHARE = 0.05
FULL_DISK_BYTES = 200_000_000

#: `controller_state` → what to do about it.
CONTROLLER_REMEDY = {
    "waiting": "see why it ends: docker logs teg_controller",
    "no version": "assign a software version to the device on the server, or set TEG_DEFAULT_CONTROLLER_VERSION",
    "image missing": "assign the version on the server again, or load its image (docker load)",
    "mount refused": "see the reason; correct TEG_CONTROLLER_MOUNTS or TEG_CONTROLLER_DEVICES",
    "name taken": "rename or remove the foreign container 'teg_controller'",
    "engine unreachable": "systemctl start docker, and let the gateway's user use it (group docker)",
    "paused": "docker unpause teg_controller",
}


@dataclass(frozen=True, slots=True)
class Trouble:
    """One line: what is wrong, and the remedy; empty where it is in the sentence."""

    text: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.text}; {self.remedy}" if self.remedy else self.text


def troubles(report: Mapping[str, Any]) -> list[Trouble]:
    """`report` is the running gateway's own account."""
    now_ms = report["now_ms"]
    return [
        *_disk(report.get("disk", {})),
        *_archive(report.get("archive", {})),
        *_link(report["connection"], now_ms),
        *_controller(report.get("controller", {})),
        *_heartbeat(report.get("controller", {}), report.get("heartbeat", {}), now_ms),
    ]


def _disk(disk: Mapping[str, Any]) -> Iterator[Trouble]:
    if "error" in disk:
        yield Trouble(harmless(disk["error"]))
    elif disk and is_full(disk["total_bytes"], disk["free_bytes"]):
        yield Trouble(f"the disk is full: {size(disk['free_bytes'])} left", "make room, or lower TEG_ARCHIVE_MAX_BYTES")


def is_full(total_bytes: int, free_bytes: int) -> bool:
    return free_bytes < min(FULL_DISK_BYTES, total_bytes * FULL_DISK_SHARE)


def _archive(archive: Mapping[str, Any]) -> Iterator[Trouble]:
    if "error" in archive:
        yield Trouble(f"the archive cannot be read: {harmless(archive['error'])}")


def _link(link: Mapping[str, Any], now_ms: int) -> Iterator[Trouble]:
    gone_s = (now_ms - (link.get("since_ms") or now_ms)) / 1000
    if link.get("shared_token"):
        yield Trouble(harmless(link["last_end"]), "give one of the two another token")
    elif not link["connected"] and (link.get("last_end") or gone_s > LINK_GRACE_S):
        yield Trouble(harmless(link.get("last_end") or f"no connection for {age(gone_s)}"))


def _controller(controller: Mapping[str, Any]) -> Iterator[Trouble]:
    state = controller.get("controller_state", "unknown")
    if "error" in controller:
        yield Trouble(f"nothing is known of the controller: {harmless(controller['error'])}")
    elif state in CONTROLLER_REMEDY:
        reason = harmless(str(controller.get("controller_state_reason", "")))
        yield Trouble(f"the controller does not run: {state} ({reason})", CONTROLLER_REMEDY[state])


def _heartbeat(controller: Mapping[str, Any], heartbeat: Mapping[str, Any], now_ms: int) -> Iterator[Trouble]:
    if "error" in heartbeat:
        yield Trouble(f"the inbox cannot be read: {harmless(heartbeat['error'])}")
        return
    since_ms = max(heartbeat.get("last_ms") or 0, controller.get("controller_running_since_ms") or 0)
    quiet_s = (now_ms - since_ms) / 1000
    if controller.get("controller_state") == "running" and quiet_s > QUIET_CONTROLLER_S:
        yield Trouble(f"the controller runs but has sent no heartbeat for {age(quiet_s)}", "docker logs teg_controller")
