"""What follows a CONNECT: a device's session, a provisioning session, or a refusal with its code."""

import time

from teg.simulator.thingsboard import credentials
from teg.simulator.thingsboard.connection import Session
from teg.simulator.thingsboard.core import Connection, Core
from teg.simulator.thingsboard.credentials import LoginRefused
from teg.simulator.thingsboard.device_state import DeviceState
from teg.simulator.thingsboard.mqtt_codec import V5, Connect
from teg.simulator.thingsboard.provisioning_session import ProvisionSession
from teg.simulator.thingsboard.session import DeviceSession


class Login:
    """Called with each CONNECT; returns the session that is open from now on, or raises `LoginRefused`."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def __call__(self, connection: Connection, connect: Connect) -> Session:
        self._raise_fault(connect)
        if credentials.wants_provisioning(connect):
            return ProvisionSession(self._core, connection, connect)
        device = self._admitted(connection, connect)
        session = DeviceSession(self._core, device, connection, connect)
        device.attach(session)
        session.watch_activity()
        return session

    def _raise_fault(self, connect: Connect) -> None:
        codes = self._core.faults.connack_codes
        code = codes.pop(0) if codes else credentials.ACCEPTED
        if code != credentials.ACCEPTED:
            raise LoginRefused(credentials.in_version(connect.version, code))

    def _admitted(self, connection: Connection, connect: Connect) -> DeviceState:
        device = self._core.find_device(connect, connection.fingerprint)
        if device is None and self._core.faults.admit_strangers:
            return DeviceState("", None, self._core.depth, self._core.later)
        if device is None:
            raise LoginRefused(credentials.refusal(connect, connection.fingerprint))
        if not device.limiter.admits_message(time.monotonic()):
            limited = credentials.RATE_LIMITED_V5 if connect.version == V5 else credentials.UNAVAILABLE
            raise LoginRefused(limited)
        return device
