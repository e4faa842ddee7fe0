"""Docker's JSON to our types: pure functions over what `inspect` answers."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from teg.domain.supervision.container_profile import Device, Mount, Rights
from teg.domain.supervision.runtime import CONTAINER_NAME, IMAGE_PREFIX, NameTaken, Observation

LABEL_MANAGED = "teg.managed"
LABEL_VERSION = "teg.version"
LABEL_PROFILE = "teg.profile"

_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def is_ours(container: Mapping[str, Any]) -> bool:
    """By our label, or made by the reference gateway: its name from an image of its name (takeover)."""
    config = container["Config"]
    if (config.get("Labels") or {}).get(LABEL_MANAGED) == "1":
        return True
    named = str(container.get("Name", "")).lstrip("/") == CONTAINER_NAME
    return named and str(config.get("Image", "")).startswith(IMAGE_PREFIX)


def parse_observation(container: Mapping[str, Any]) -> Observation:
    """Raises NameTaken for a container that is not ours."""
    if not is_ours(container):
        raise NameTaken(
            f"a container that is not ours is called {CONTAINER_NAME} (image {container['Config'].get('Image')}); "
            f"it is left alone: rename it with `docker rename {CONTAINER_NAME} another_name`"
        )
    state, labels = container["State"], container["Config"].get("Labels") or {}
    running = bool(state["Running"]) and not state.get("Dead", False)
    return Observation(
        exists=True,
        running=running,
        paused=bool(state.get("Paused", False)),
        run_id=f"{str(container['Id'])[:12]}@{state.get('StartedAt', '')}",
        version=labels.get(LABEL_VERSION),
        profile=labels.get(LABEL_PROFILE),
        image=container["Config"].get("Image"),
        started_ms=parse_time_ms(state.get("StartedAt", "")),
        exit_code=None if running else state.get("ExitCode"),
        oom_killed=bool(state.get("OOMKilled", False)),
        error=str(state.get("Error", ""))[:500],
        rights=None if LABEL_PROFILE in labels else parse_rights_of(container),
    )


def parse_rights_of(container: Mapping[str, Any]) -> Rights:
    """What the container of a former gateway may do; it saw its two directories, which stay where they are."""
    host = container.get("HostConfig") or {}
    return Rights(
        privileged=host.get("Privileged") is True,
        host_network=host.get("NetworkMode") == "host",
        capabilities=tuple(str(name).removeprefix("CAP_") for name in host.get("CapAdd") or ()),
        devices=tuple(
            Device(device["PathOnHost"], device["PathInContainer"], device.get("CgroupPermissions") or "rwm")
            for device in host.get("Devices") or ()
        ),
        mounts=tuple(
            Mount(mount["Source"], mount["Destination"], read_only=not mount.get("RW", True))
            for mount in container.get("Mounts") or ()
            if mount.get("Type") == "bind" and mount["Destination"] not in ("/root/data", "/root/logs")
        ),
        memory_bytes=max(0, host.get("Memory") or 0),
        pids=max(0, host.get("PidsLimit") or 0),
    )


def parse_time_ms(text: str) -> int | None:
    """RFC 3339 with any number of fractional digits (Go trims zeros); None for Go's zero time and for nonsense."""
    if not (match := _TIME.fullmatch(text)) or text.startswith("0001-"):
        return None
    try:
        moment = datetime.fromisoformat(match[1] + match[3].replace("Z", "+00:00"))
    except ValueError:
        return None
    return (moment - _EPOCH) // timedelta(milliseconds=1) + int(f"{(match[2] or '.')[1:4]:0<3}")


def parse_memory_bytes(stats: Mapping[str, Any]) -> int | None:
    """As `docker stats` shows it: without the page cache that can be dropped; None where it is not accounted."""
    memory = stats.get("memory_stats") or {}
    usage = memory.get("usage")
    if not isinstance(usage, int):
        return None
    details = memory.get("stats") or {}
    cache = details.get("total_inactive_file", details.get("inactive_file", 0))
    return max(0, usage - int(cache))
