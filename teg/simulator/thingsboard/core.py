"""What all connections of one server share. Touched on the server's loop only."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from teg.simulator.thingsboard.change_signal import ChangeSignal
from teg.simulator.thingsboard.credentials import Credentials, find_device
from teg.simulator.thingsboard.device_state import DeviceState
from teg.simulator.thingsboard.faults import Faults
from teg.simulator.thingsboard.mqtt_codec import Connect
from teg.simulator.thingsboard.packet_log import PacketLog
from teg.simulator.thingsboard.provisioning import Provisioning
from teg.simulator.thingsboard.rate_limits import DeviceLimiter, RateLimits
from teg.simulator.thingsboard.server_limits import ServerLimits
from teg.simulator.thingsboard.telemetry_store import Depth

if TYPE_CHECKING:
    from teg.simulator.thingsboard.connection import Connection


@dataclass
class Core:
    loop: asyncio.AbstractEventLoop
    limits: ServerLimits
    depth: Depth
    packets: PacketLog
    changes: ChangeSignal = field(default_factory=ChangeSignal)
    faults: Faults = field(default_factory=Faults)
    provisioning: Provisioning = field(default_factory=Provisioning)
    devices: dict[str, DeviceState] = field(default_factory=dict)
    open_connections: "set[Connection]" = field(default_factory=set)
    connections: int = 0

    def add_device(self, name: str, credentials: Credentials | None) -> DeviceState:
        if name in self.devices:
            raise ValueError(f"device {name!r} exists already")
        state = DeviceState(name, credentials, self.depth, self.later)
        state.limiter = DeviceLimiter(RateLimits.of(self.limits.rate_limits))
        self.devices[name] = state
        return state

    def find_device(self, connect: Connect) -> DeviceState | None:
        return find_device(connect, self.devices.values())

    def later(self, delay_s: float, action: Callable[[], None]) -> asyncio.TimerHandle:
        """Run `action` after the delay and wake whoever waits for its effect."""
        return self.loop.call_later(delay_s, self._run, action)

    def _run(self, action: Callable[[], None]) -> None:
        action()
        self.changes.notify()
