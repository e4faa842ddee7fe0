"""Everything the server knows of one device. Touched on the server's loop only; tests hold a `Device`."""

import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import orjson

from teg.simulator.thingsboard.alarm_rules import DeviceAlarms
from teg.simulator.thingsboard.attributes import AttributeStore, typed_values
from teg.simulator.thingsboard.claiming import Claim
from teg.simulator.thingsboard.credentials import Credentials
from teg.simulator.thingsboard.ota_packages import Package, all_attributes
from teg.simulator.thingsboard.payloads import parse_exact
from teg.simulator.thingsboard.rate_limits import DeviceLimiter, RateLimits
from teg.simulator.thingsboard.rpc import PendingCalls, Schedule
from teg.simulator.thingsboard.server_versions import ServerVersion
from teg.simulator.thingsboard.telemetry_store import Backup as SeriesBackup
from teg.simulator.thingsboard.telemetry_store import Depth, TelemetryStore
from teg.simulator.thingsboard.traffic import Publish, SessionRecord

#: Which of the two pushes of an assignment comes first: the real server promises neither. Two of three times the
#: deletion came first ("delete_first"); "either" does so too, two of three times.
PushOrder = Literal["set_first", "delete_first", "either"]
_EITHER: tuple[PushOrder, ...] = ("delete_first", "set_first", "delete_first")

#: Publishes remembered by a store that is not "full"; each may hold 64 kB.
LAST_PUBLISHES = 100


class AttachedSession(Protocol):
    """The live session of a device."""

    @property
    def record(self) -> SessionRecord: ...
    @property
    def active_s(self) -> float:
        """Monotonic time of the last bytes from the client."""
        ...

    def push(self, values: dict[str, Any]) -> None: ...
    def send_answer(self, topic: str, payload: bytes) -> None: ...
    def end(self, reason: str, code: int) -> None: ...


@dataclass(frozen=True, slots=True)
class DeviceBackup:
    """What the database held of one device at some moment."""

    device: "DeviceState"
    credentials: Credentials | None
    series: SeriesBackup
    client: dict[str, Any]
    shared: dict[str, Any]
    server: dict[str, Any]

    def restore(self) -> None:
        device = self.device
        device.credentials = self.credentials
        device.telemetry.restore(self.series)
        attributes = device.attributes
        attributes.client, attributes.shared = dict(self.client), dict(self.shared)
        attributes.server = dict(self.server)


class DeviceState:
    def __init__(self, name: str, credentials: Credentials | None, depth: Depth, schedule: Schedule) -> None:
        self.id = str(uuid.uuid4())
        self.created_ms = time.time_ns() // 1_000_000
        self.name = name
        #: Fields of the device that only the REST API reads and writes.
        self.details: dict[str, Any] = {}
        self.credentials = credentials
        #: "Is gateway" in its details: it may speak for other devices.
        self.is_gateway = False
        self.telemetry = TelemetryStore(depth)
        self.attributes = AttributeStore()
        self.alarms = DeviceAlarms()
        self.rpc = PendingCalls(schedule)
        self.limiter = DeviceLimiter(RateLimits())
        self.publishes: deque[Publish] = deque(maxlen=None if depth == "full" else LAST_PUBLISHES)
        self.publish_count = 0
        self.sessions: list[SessionRecord] = []
        self.session: AttachedSession | None = None
        self.packages: dict[str, Package] = {}
        #: Kind -> id of the package as the REST API knows it.
        self.package_ids: dict[str, str] = {}
        self._assignments = 0
        self.server_telemetry: list[tuple[int, dict[str, Any]]] = []
        self.attribute_requests: list[tuple[int, bytes]] = []
        self.client_rpcs: list[tuple[int, str, Any]] = []
        self.claims: list[bytes] = []
        #: The offer that is open; a customer who takes or fails it ends it.
        self.claim: Claim | None = None
        self.answer_client_rpc: Callable[[str, Any], Any] | None = None
        self.held_answers: list[tuple[str, bytes]] = []

    def attach(self, session: AttachedSession) -> None:
        """One session per device: the newer one wins, the older is closed."""
        older, self.session = self.session, session
        self.sessions.append(session.record)
        if older is not None:
            older.end("another session of the same device", 0x8E)

    def detach(self, session: AttachedSession) -> None:
        if self.session is session:
            self.session = None

    def end_session(self, reason: str, code: int) -> None:
        session, self.session = self.session, None
        if session is not None:
            session.end(reason, code)

    def series(self, key: str) -> dict[int, Any]:
        """ts -> value, what the server wrote itself included."""
        own = {ts: values[key] for ts, values in self.server_telemetry if key in values}
        return self.telemetry.series(key) | own

    def series_keys(self) -> list[str]:
        own = (key for _, values in self.server_telemetry for key in values)
        return list(dict.fromkeys([*self.telemetry.per_key(), *own]))

    def write_shared(self, values: dict[str, Any]) -> None:
        """Store and push what the operator writes, type-cast as the REST API does it."""
        self._set_shared(typed_values(parse_exact(orjson.dumps(values))))

    def delete_shared(self, keys: list[str]) -> None:
        """The push names the keys that were asked for, whether they existed or not."""
        for key in keys:
            self.attributes.delete("SHARED_SCOPE", key)
        self.push({"deleted": keys})

    def assign(self, kind: str, package: Package, order: PushOrder, version: ServerVersion) -> None:
        """Assigning the same package again sends nothing; an old server fails before it has written an attribute."""
        if self.packages.get(kind) == package:
            return
        self.packages[kind] = package
        now_ms = time.time_ns() // 1_000_000
        self.server_telemetry += [
            (now_ms, {**package.targets(kind, now_ms), f"{kind}_state": "QUEUED"}),
            (now_ms, {f"{kind}_state": "INITIATED"}),
        ]
        if not (package.lacks_algorithm and version.url_package_needs_algorithm):
            self._push_package(kind, package, order)

    def _push_package(self, kind: str, package: Package, order: PushOrder) -> None:
        if order == "either":
            order = _EITHER[self._assignments % len(_EITHER)]
            self._assignments += 1
        if order == "set_first":
            self._set_shared(package.attributes(kind))
        self.delete_shared(package.stale_attributes(kind))
        if order == "delete_first":
            self._set_shared(package.attributes(kind))

    def unassign(self, kind: str) -> None:
        self.package_ids.pop(kind, None)
        if self.packages.pop(kind, None) is not None:
            self.delete_shared(all_attributes(kind))

    def backup(self) -> "DeviceBackup":
        attributes = self.attributes
        scopes = (dict(values) for values in (attributes.client, attributes.shared, attributes.server))
        return DeviceBackup(self, self.credentials, self.telemetry.backup(), *scopes)

    def hold_answer(self, topic: str, payload: bytes) -> None:
        """Keep an attribute response back until the next push, or until it is released."""
        self.held_answers.append((topic, payload))

    def release_answers(self) -> None:
        if self.session is None:
            return
        answers, self.held_answers = self.held_answers, []
        for topic, payload in answers:
            self.session.send_answer(topic, payload)

    def _set_shared(self, values: dict[str, Any]) -> None:
        self.attributes.write("SHARED_SCOPE", values)
        self.push(values)

    def push(self, values: dict[str, Any]) -> None:
        """Send a push to the live session, then the answers that were held back for one."""
        if self.session is not None and values:
            self.session.push(values)
            self.release_answers()
