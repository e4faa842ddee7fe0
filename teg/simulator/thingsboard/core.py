"""What all connections of one server share. Touched on the server's loop only."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from teg.simulator.thingsboard.alarm_rules import AlarmDefinition
from teg.simulator.thingsboard.change_signal import ChangeSignal
from teg.simulator.thingsboard.credentials import Credentials, find_device
from teg.simulator.thingsboard.device_state import DeviceBackup, DeviceState
from teg.simulator.thingsboard.faults import Faults
from teg.simulator.thingsboard.mqtt_codec import Connect
from teg.simulator.thingsboard.packet_log import PacketLog
from teg.simulator.thingsboard.provisioning import Provisioning
from teg.simulator.thingsboard.rate_limits import DeviceLimiter, RateLimits
from teg.simulator.thingsboard.server_limits import ServerLimits
from teg.simulator.thingsboard.server_queue import ServerQueue
from teg.simulator.thingsboard.telemetry_store import Depth


class Connection(Protocol):
    """One client's TCP connection, as far as sessions and the server need it."""

    @property
    def number(self) -> int: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def active_s(self) -> float:
        """Monotonic time of the last bytes from the client."""
        ...

    @property
    def can_send(self) -> bool: ...
    @property
    def has_unread_packets(self) -> bool: ...
    def send(self, packet: bytes) -> bool:
        """Write the packet; False if it cannot reach the client any more."""
        ...

    def close(self, reason: str, code: int | None = None) -> None:
        """Close; MQTT 5 sends a DISCONNECT with `code` first."""
        ...

    def reset(self, reason: str) -> None:
        """End with a TCP reset instead of a regular close."""
        ...

    def abort(self, reason: str) -> None:
        """Drop the connection at once, whatever is still to be written."""
        ...

    def pause(self, paused: bool) -> None:
        """Stop or go on reading from the socket."""
        ...


#: The database of a server, by names of devices.
Backup = dict[str, DeviceBackup]


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
    #: By id of the device profile; None: of devices that nobody gave one.
    alarm_rules: dict[str | None, tuple[AlarmDefinition, ...]] = field(default_factory=dict)
    open_connections: set[Connection] = field(default_factory=set)
    connections: int = 0
    queue: ServerQueue = field(init=False)
    #: Has TLS take this client certificate (PEM); set by the server, and none without TLS.
    trust_client: Callable[[str], None] = field(default=lambda _: None)

    def __post_init__(self) -> None:
        self.queue = ServerQueue(self.later, self.faults, self.limits.pack_size)

    def add_device(self, name: str, credentials: Credentials | None) -> DeviceState:
        if name in self.devices:
            raise ValueError(f"device {name!r} exists already")
        state = DeviceState(name, credentials, self.depth, self.later)
        limits = RateLimits() if self.faults.ignore_rate_limits else RateLimits.of(self.limits.rate_limits)
        state.limiter = DeviceLimiter(limits)
        self.devices[name] = state
        return state

    def alarms_of(self, device: DeviceState) -> tuple[AlarmDefinition, ...]:
        if self.faults.skip_alarm_rules:
            return ()
        return self.alarm_rules.get(device.details.get("deviceProfileId", {}).get("id"), ())

    def end_process(self, reason: str, end_queue: Callable[[], object]) -> None:
        """The server process ends and is back at once, in one step: no packet comes in between.

        What it held in memory is gone: sessions, calls under way, token buckets; the database stays.
        """
        for connection in list(self.open_connections):
            connection.abort(reason)
        end_queue()
        for device in self.devices.values():
            device.rpc.restart()
            device.limiter = DeviceLimiter(device.limiter.limits)

    def backup(self) -> Backup:
        return {name: device.backup() for name, device in self.devices.items()}

    def restore(self, backup: Backup) -> None:
        """Devices that were created since then are unknown again, deleted ones are back."""
        for device_backup in backup.values():
            device_backup.restore()
        self.devices = {name: device_backup.device for name, device_backup in backup.items()}

    def provision(self, name: str, credentials: Credentials | None, fields: Mapping[str, Any]) -> None:
        """Create the device, or give the one of this name its credentials; `fields` come from its profile."""
        device = self.devices.get(name)
        if device is None:
            device = self.add_device(name, credentials)
        device.credentials = credentials
        if credentials is not None and credentials.certificate is not None:
            self.trust_client(credentials.certificate)
        device.details |= fields

    def entered(self, name: str, fields: Mapping[str, Any]) -> Credentials | None:
        """The credentials of a device of this name and of the profile with these fields; None without one."""
        device, profile = self.devices.get(name), fields.get("deviceProfileId")
        if device is None or (profile is not None and device.details.get("deviceProfileId") != profile):
            return None
        return device.credentials

    def delete_device(self, name: str) -> None:
        """Its session is closed and its credentials are unknown from now on."""
        self.devices.pop(name).end_session("device deleted", 0x98)

    def rename_device(self, device: DeviceState, name: str) -> None:
        del self.devices[device.name]
        device.name = name
        self.devices[name] = device

    def device_by_id(self, identity: str) -> DeviceState | None:
        return next((device for device in self.devices.values() if device.id == identity), None)

    def find_device(self, connect: Connect, fingerprint: str = "") -> DeviceState | None:
        return find_device(connect, self.devices.values(), fingerprint)

    def later(self, delay_s: float, action: Callable[[], None]) -> asyncio.TimerHandle:
        """Run `action` after the delay and wake whoever waits for its effect."""
        return self.loop.call_later(delay_s, self._run, action)

    def _run(self, action: Callable[[], None]) -> None:
        action()
        self.changes.notify()
