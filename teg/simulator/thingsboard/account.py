"""The stand-in's account as JSON: what each device has delivered so far."""

import time
from typing import Any

from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.server import ThingsBoard


def server_account(server: ThingsBoard, *, final: bool = False) -> dict[str, Any]:
    """`time_ms` is wall-clock time; `queued` is acknowledged and not yet stored.

    With the store "count" the points are not told apart: all are 0.
    """
    return {
        "time_ms": time.time_ns() // 1_000_000,
        "final": final,
        "connections": server.open_connections,
        "queued": server.queued,
        "devices": {device.name: device_account(device) for device in server.devices},
    }


def device_account(device: Device) -> dict[str, Any]:
    """`distinct` counts different (key, ts), `keys` the same per key; records and duplicates are as received."""
    return {
        "connected": device.connected,
        "sessions": len(device.sessions),
        "publishes": device.publish_count,
        "records": device.records_received,
        "bytes": device.bytes_received,
        "distinct": device.distinct,
        "duplicates": device.duplicates,
        "conflicts": len(device.conflicts),
        "max_unacked": device.max_unacked,
        "keys": device.points_per_key(),
        "latest": device.latest_values(),
        "client_attributes": device.client_attributes,
    }
