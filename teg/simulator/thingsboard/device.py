"""The test's view of one device of the stand-in: what arrived, what the operator does, what must hold.

Every method may be called from any thread. Nothing returned here is live: lists and dicts are copies.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from teg.simulator.thingsboard.change_signal import ChangeSignal
from teg.simulator.thingsboard.credentials import Credentials
from teg.simulator.thingsboard.device_state import DeviceState, PushOrder
from teg.simulator.thingsboard.loop_thread import LoopThread
from teg.simulator.thingsboard.ota_packages import Package
from teg.simulator.thingsboard.rpc import RpcCall, RpcHandle, RpcOutcome
from teg.simulator.thingsboard.server_limits import ServerLimits
from teg.simulator.thingsboard.traffic import Publish, SessionRecord

Point = tuple[str, int]
Result = TypeVar("Result")


class Device:
    def __init__(self, state: DeviceState, thread: LoopThread, changes: ChangeSignal, limits: ServerLimits) -> None:
        self._state = state
        self._thread = thread
        self._changes = changes
        self._limits = limits

    def __repr__(self) -> str:
        state = self._state
        closed = [record.close_reason for record in state.sessions if not record.open]
        return (
            f"<device {self.name}: {'connected' if self.connected else 'not connected'}, "
            f"{len(state.sessions)} sessions (last closed: {closed[-1] if closed else 'none'}), "
            f"{len(state.publishes)} publishes, {state.telemetry.records_received} records>"
        )

    @property
    def name(self) -> str:
        return self._state.name

    @property
    def id(self) -> str:
        """The UUID by which the REST API knows it."""
        return self._state.id

    def make_gateway(self) -> None:
        """It may speak for other devices from now on."""
        self._state.is_gateway = True

    # --- what arrived

    def telemetry(self) -> dict[Point, Any]:
        """(key, ts) -> value as ThingsBoard stores it; the last value wins. JSON comes as dict or list."""
        return self._state.telemetry.points()

    def latest(self, key: str) -> Any:
        """What a dashboard shows: the value with the greatest ts, also one that the server wrote itself."""
        own = {name: value for _, values in self.server_telemetry for name, value in values.items()}
        value = self._state.telemetry.latest(key)
        return own.get(key) if value is None else value

    def latest_values(self) -> dict[str, Any]:
        return self._state.telemetry.latest_values()

    def records(self) -> list[tuple[int, dict[str, Any]]]:
        """(ts, values) of every element as received, in order and with duplicates."""
        return self._state.telemetry.records()

    def arrivals(self) -> list[tuple[int, bytes]]:
        """(wall-clock ms, raw telemetry payload) as the server took them."""
        return self._state.telemetry.arrivals()

    @property
    def payloads(self) -> list[bytes]:
        """Raw telemetry payloads that the server took, in order."""
        return self._state.telemetry.payloads()

    @property
    def server_telemetry(self) -> list[tuple[int, dict[str, Any]]]:
        """What the server itself wrote (OTA targets and states); not part of `telemetry()`."""
        return list(self._state.server_telemetry)

    @property
    def publishes(self) -> list[Publish]:
        """Every PUBLISH of every session, taken or not."""
        return list(self._state.publishes)

    @property
    def publish_count(self) -> int:
        """Of all topics and sessions; `publishes` itself keeps only the last hundred unless the store is "full"."""
        return self._state.publish_count

    def published_to(self, topic: str) -> list[Publish]:
        return [publish for publish in self.publishes if publish.topic == topic]

    @property
    def records_received(self) -> int:
        return self._state.telemetry.records_received

    @property
    def bytes_received(self) -> int:
        """Of telemetry payloads."""
        return self._state.telemetry.bytes_received

    @property
    def distinct(self) -> int:
        """Number of different (key, ts)."""
        return self._state.telemetry.distinct()

    def points_per_key(self) -> dict[str, int]:
        """Number of different ts of each key."""
        return self._state.telemetry.per_key()

    @property
    def duplicates(self) -> int:
        """Points received again with the same value: harmless, but each cost bandwidth."""
        return self._state.telemetry.duplicates()

    @property
    def conflicts(self) -> list[Point]:
        """Points overwritten by another value: data lost on the server."""
        return self._state.telemetry.conflicts()

    @property
    def attribute_requests(self) -> list[tuple[int, bytes]]:
        """(request id, payload) of every attribute request."""
        return list(self._state.attribute_requests)

    @property
    def client_rpcs(self) -> list[tuple[int, str, Any]]:
        """(id, method, params) of every call that the device made."""
        return list(self._state.client_rpcs)

    @property
    def claims(self) -> list[bytes]:
        return list(self._state.claims)

    @property
    def pending_calls(self) -> list[RpcCall]:
        """Calls to the device that nobody has answered yet."""
        return self._state.rpc.pending

    @property
    def stale_rpc_responses(self) -> list[tuple[int, bytes]]:
        """RPC responses that nobody waited for."""
        return list(self._state.rpc.stale_responses)

    # --- sessions

    @property
    def connected(self) -> bool:
        return self._state.session is not None

    @property
    def sessions(self) -> list[SessionRecord]:
        """Every session that got CONNACK 0, oldest first."""
        return list(self._state.sessions)

    @property
    def subscriptions(self) -> dict[str, int]:
        """Filter -> granted QoS of the live session."""
        session = self._state.session
        return dict(session.record.subscriptions) if session else {}

    @property
    def max_unacked(self) -> int:
        """Most QoS 1 publishes that were on their way at one time, over all sessions."""
        return max((record.max_unacked for record in self.sessions), default=0)

    def kick(self) -> None:
        """Close the session as a second login of the same device would."""
        self._on_loop(lambda: self._state.end_session("taken over by another session", 0x8E))

    def revoke_token(self) -> Credentials | None:
        """Close the session; logins get CONNACK 5 until `restore` is called with what this returns."""
        return self._on_loop(self._revoke)

    def restore(self, credentials: Credentials | None) -> None:
        self._on_loop(lambda: setattr(self._state, "credentials", credentials))

    # --- attributes

    @property
    def client_attributes(self) -> dict[str, Any]:
        return dict(self._state.attributes.client)

    @property
    def shared_attributes(self) -> dict[str, Any]:
        return dict(self._state.attributes.shared)

    def set_shared(self, values: Mapping[str, Any]) -> None:
        """Write as the operator: type-cast ("42" becomes 42), and pushed if the device subscribed."""
        self._on_loop(lambda: self._state.write_shared(dict(values)))

    def delete_shared(self, keys: Iterable[str]) -> None:
        self._on_loop(lambda: self._state.delete_shared(list(keys)))

    def set_client(self, values: Mapping[str, Any]) -> None:
        """Client attributes from an earlier life of the device."""
        self._on_loop(lambda: self._state.attributes.write("CLIENT_SCOPE", dict(values)))

    def push(self, values: Mapping[str, Any]) -> None:
        """Send this attribute push as it is and store nothing: a stale or a made-up one."""
        self._on_loop(lambda: self._state.push(dict(values)))

    def release_attribute_responses(self) -> None:
        """Send the answers that `faults.stale_attribute_response` held back, in the live session."""
        self._on_loop(self._state.release_answers)

    # --- RPC

    def rpc(self, method: str, params: Any = None, timeout_s: float = 10.0, **options: Any) -> RpcOutcome:
        """Call and wait for the outcome. Options as in `rpc_async`."""
        return self.rpc_async(method, params, timeout_s, **options).wait()

    def rpc_async(
        self,
        method: str,
        params: Any = None,
        timeout_s: float = 10.0,
        *,
        one_way: bool = False,
        persistent: bool = False,
        retries: int | None = None,
        old_api: bool = False,
    ) -> RpcHandle:
        """Call without waiting. `old_api`: /api/plugins/rpc, whose timeouts are 408 and 409, not 504."""
        most = self._limits.rpc_max_retries
        call = RpcCall(
            method,
            params,
            max(timeout_s, self._limits.rpc_min_timeout_s),
            one_way,
            persistent,
            old_api,
            most if retries is None else min(retries, most),
        )
        self._on_loop(lambda: self._state.rpc.submit(call))
        return RpcHandle(call)

    def delete_rpc(self, handle: RpcHandle) -> None:
        """Delete a persistent call."""
        self._on_loop(lambda: self._state.rpc.delete(handle.call))

    def answer_client_rpc(self, answer: Callable[[str, Any], Any] | None) -> None:
        """Stand for a rule chain: `answer(method, params)` is sent back, None = the usual timeout."""
        self._on_loop(lambda: setattr(self._state, "answer_client_rpc", answer))

    # --- packages

    def assign_software(
        self,
        title: str,
        version: str,
        data: bytes | None = None,
        algorithm: str | None = None,
        order: PushOrder | None = None,
        url: str | None = None,
        tag: str | None = None,
        checksum: str | None = None,
    ) -> None:
        """`data` makes it a stored package; without it, `url` is what the device gets ("-" by habit).

        `order` None = as the server is set to.
        """
        place = "-" if data is None and url is None else url
        package = Package(title, version, data, place, tag, algorithm, checksum)
        self._assign("sw", package, order)

    def unassign_software(self) -> None:
        self._on_loop(lambda: self._state.unassign("sw"))

    def assign_firmware(self, package: Package, order: PushOrder | None = None) -> None:
        self._assign("fw", package, order)

    def unassign_firmware(self) -> None:
        self._on_loop(lambda: self._state.unassign("fw"))

    # --- waiting and checking

    def wait_for(self, predicate: Callable[["Device"], object], timeout_s: float, what: str = "") -> None:
        """Wait until `predicate(device)` holds; it is looked at now and after every event on the server.

        It runs in the calling thread, and what it raises is passed on.

        Raises:
            AssertionError: it did not hold in time.
        """
        if not self._changes.wait_until(lambda: predicate(self), timeout_s):
            raise AssertionError(f"not within {timeout_s} s: {what or 'the condition'}; {self!r}")

    def wait_connected(self, timeout_s: float = 10.0) -> None:
        self.wait_for(lambda device: device.connected, timeout_s, "connected")

    def wait_disconnected(self, timeout_s: float = 10.0) -> None:
        self.wait_for(lambda device: not device.connected, timeout_s, "disconnected")

    def wait_subscribed(self, *filters: str, timeout_s: float = 10.0) -> None:
        self.wait_for(lambda device: set(filters) <= set(device.subscriptions), timeout_s, f"subscribed to {filters}")

    def assert_each_stored_once(self, expected: Mapping[Point, Any] | Iterable[Point]) -> None:
        """Every expected (key, ts) is stored, with its value if one is given, and was never overwritten.

        Of the keys that occur in `expected` no other point may be stored. Points that arrived twice with
        the same value are one point; `duplicates` counts them.
        """
        stored, points = self.telemetry(), set(expected)
        keys = {key for key, _ in points}
        missing = points - stored.keys()
        extra = {point for point in stored.keys() - points if point[0] in keys}
        assert not missing, f"{len(missing)} of {len(points)} points are lost, such as {_some(missing)}"
        assert not extra, f"{len(extra)} points were never expected, such as {_some(extra)}"
        assert not self.conflicts, f"overwritten by another value: {self.conflicts[:5]}"
        if isinstance(expected, Mapping):
            wrong = {point: stored[point] for point in points if stored[point] != expected[point]}
            assert not wrong, f"{len(wrong)} points have another value, such as {dict(list(wrong.items())[:5])}"

    def assert_timestamps_within(self, first_ms: int, last_ms: int) -> None:
        """No point lies outside: a jumped clock, or seconds where milliseconds belong (1970)."""
        strange = [point for point in self.telemetry() if not first_ms <= point[1] <= last_ms]
        assert not strange, f"{len(strange)} points outside {first_ms} to {last_ms}, such as {_some(strange)}"

    def assert_max_unacked(self, most: int) -> None:
        assert self.max_unacked <= most, f"{self.max_unacked} publishes were unacknowledged, more than {most}"

    def assert_qos1_only(self) -> None:
        wrong = [publish for publish in self.publishes if publish.qos != 1]
        assert not wrong, f"{len(wrong)} publishes without QoS 1, such as {wrong[0]}"

    def assert_quiet_after_disconnect(self) -> None:
        """No session sent anything after its DISCONNECT."""
        loud = [record for record in self.sessions if record.packets_after_disconnect]
        assert not loud, f"packets after DISCONNECT: {loud}"

    def _assign(self, kind: str, package: Package, order: PushOrder | None) -> None:
        limits = self._limits
        self._on_loop(lambda: self._state.assign(kind, package, order or limits.push_order, limits.behaviour))

    def _revoke(self) -> Credentials | None:
        credentials, self._state.credentials = self._state.credentials, None
        self._state.end_session("credentials changed", 0x98)
        return credentials

    def _on_loop(self, action: Callable[[], Result]) -> Result:
        def act() -> Result:
            result = action()
            self._changes.notify()
            return result

        return self._thread.call(act)


def _some(points: Iterable[Point]) -> list[Point]:
    return sorted(points)[:5]
