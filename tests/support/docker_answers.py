"""A container as Docker describes it."""

from typing import Any

CONTAINER: dict[str, Any] = {
    "Id": "a" * 64,
    "Name": "/teg_controller",
    "State": {"Running": True, "Paused": False, "OOMKilled": False, "ExitCode": 0, "StartedAt": "2026-01-01T00:00:00Z"},
    "Config": {"Image": "teg-controller-v1:latest", "Labels": {"teg.managed": "1", "teg.version": "v1"}},
}


def container(name: str = "/teg_controller", **config: Any) -> dict[str, Any]:
    return CONTAINER | {"Name": name, "Config": {"Image": "x", "Labels": None} | config}
