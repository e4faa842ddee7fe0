"""What the server notes of a device's connection, as attributes of the server scope.

Source: ThingsBoard's DefaultDeviceStateService. The real server writes them every few seconds; here they are worked out
when somebody reads them.
"""

import time
from typing import Any

from teg.simulator.thingsboard.device_state import DeviceState


def activity_attributes(device: DeviceState, inactive_after_s: float) -> dict[str, Any]:
    """`active` and the times (ms since 1970) of the last connection; nothing of a device that never connected."""
    if not device.sessions:
        return {}
    last = device.sessions[-1]
    heard_s = device.session.active_s if device.session is not None else last.closed_s or last.opened_s
    found = {
        "active": time.monotonic() - heard_s < inactive_after_s,
        "lastConnectTime": _wall_ms(last.opened_s),
        "lastActivityTime": _wall_ms(heard_s),
    }
    closed = [record.closed_s for record in device.sessions if record.closed_s is not None]
    return found | ({"lastDisconnectTime": _wall_ms(closed[-1])} if closed else {})


def _wall_ms(monotonic_s: float) -> int:
    return int((time.time() - time.monotonic() + monotonic_s) * 1000)
