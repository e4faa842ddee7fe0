"""What the conformance tests know of a server: where it is, a tenant's hands on it, and a report of what was seen."""

import itertools
import os
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from teg.simulator.thingsboard import mqtt_codec, telemetry_store
from teg.simulator.thingsboard.faults import always
from teg.simulator.thingsboard.server import ThingsBoard
from teg.simulator.thingsboard.typing_rules import typed
from tests.support.rest import Rest
from tests.support.stand_in_client import PahoDevice

#: How long a real server may take to store what it acknowledged.
PATIENCE_S = float(os.environ.get("TB_TEST_PATIENCE_S", "20"))


@dataclass(frozen=True, slots=True)
class Target:
    url: str
    host: str
    port: int
    user: str = "tenant@thingsboard.org"
    password: str = "tenant"
    version: str = "4.2.1.1"


@dataclass(frozen=True, slots=True)
class Row:
    statement: str
    expected: Any
    seen: Any

    @property
    def holds(self) -> bool:
        return type(self.expected) is type(self.seen) and bool(self.expected == self.seen)


@dataclass(slots=True)
class Report:
    """Every statement that was checked, with what was expected and seen."""

    rows: list[Row] = field(default_factory=list)

    @property
    def differing(self) -> int:
        return sum(not row.holds for row in self.rows)

    def check(self, statement: str, expected: Any, seen: Any) -> None:
        row = Row(statement, expected, seen)
        self.rows.append(row)
        assert row.holds, f"{statement}: expected {expected!r}, seen {seen!r}"


@dataclass(frozen=True, slots=True)
class Made:
    """A device made for one test."""

    id: str
    name: str
    token: str


class Tenant:
    def __init__(self, rest: Rest, target: Target) -> None:
        self.rest = rest
        self.target = target
        self._made: list[str] = []

    def device(self) -> Made:
        name, token = f"conformance-{uuid.uuid4().hex[:12]}", uuid.uuid4().hex[:20]
        body = self.rest.post("/api/device", {"name": name, "type": "default"}, params={"accessToken": token}).json()
        self._made.append(f"/api/device/{body['id']['id']}")
        return Made(body["id"]["id"], name, token)

    def package(self, data: bytes | None, version: str, **fields: Any) -> dict[str, str]:
        profile = self.rest.get("/api/deviceProfileInfo/default").json()["id"]
        title = f"conformance-{uuid.uuid4().hex[:12]}"
        body = {"deviceProfileId": profile, "type": "SOFTWARE", "title": title, "version": version, **fields}
        identity: dict[str, str] = self.rest.post("/api/otaPackage", body).json()["id"]
        self._made.append(f"/api/otaPackage/{identity['id']}")
        if data is not None:
            query = {"checksumAlgorithm": "SHA256"}
            self.rest.post(f"/api/otaPackage/{identity['id']}", params=query, files={"file": ("package", data)})
        return identity

    def assign(self, device: Made, package: Mapping[str, str] | None) -> None:
        body = self.rest.get(f"/api/device/{device.id}").json()
        self.rest.post("/api/device", {**body, "softwareId": package})

    def provisioning_key(self, provision_type: str) -> tuple[str, str]:
        """Key and secret of a profile made for this test."""
        key, secret = uuid.uuid4().hex[:20], uuid.uuid4().hex[:20]
        data = {
            "configuration": {"type": "DEFAULT"},
            "transportConfiguration": {"type": "DEFAULT"},
            "provisionConfiguration": {"type": provision_type, "provisionDeviceSecret": secret},
        }
        body = {"name": f"conformance-{key}", "type": "DEFAULT", "transportType": "DEFAULT"}
        body |= {"provisionType": provision_type, "provisionDeviceKey": key, "profileData": data}  # type: ignore[dict-item]
        saved = self.rest.post("/api/deviceProfile", body).json()
        self._made.append(f"/api/deviceProfile/{saved['id']['id']}")
        return key, secret

    def adopt(self, name: str) -> str:
        """The id of a device that provisioned itself; it is deleted at the end like our own."""
        identity: str = self.rest.get("/api/tenant/devices", deviceName=name).json()["id"]["id"]
        self._made.append(f"/api/device/{identity}")
        return identity

    def telemetry_path(self, device: Made) -> str:
        return f"/api/plugins/telemetry/DEVICE/{device.id}"

    def stored(self, device: Made, *keys: str) -> dict[str, Any]:
        """key -> latest value as it is stored; waits until each of the keys has one."""
        path = f"{self.telemetry_path(device)}/values/timeseries"

        def found() -> dict[str, Any] | None:
            latest = self.rest.get(path, keys=",".join(keys), useStrictDataTypes="true").json()
            values = {key: latest[key][0]["value"] for key in keys if key in latest}
            return values if all(values.get(key) is not None for key in keys) else None

        values: dict[str, Any] = eventually(found, f"{keys} of {device.name}")
        return values

    def client(self, device: Made) -> PahoDevice:
        return PahoDevice(device.token).opened(self.target.host, self.target.port)

    def clean_up(self) -> None:
        """Last made, first deleted: a package is in use as long as its device is there."""
        devices_first = sorted(self._made, key=lambda path: not path.startswith("/api/device/"))
        for path in devices_first:
            self.rest.delete(path)
        self.rest.close()


def eventually(probe: Callable[[], Any], what: str) -> Any:
    """The first answer that is not None: a real server stores later than it acknowledges."""
    deadline_s = time.monotonic() + PATIENCE_S
    while (found := probe()) is None:
        assert time.monotonic() < deadline_s, f"never came: {what}"
        time.sleep(0.02)
    return found


def _no_sabotage(_server: ThingsBoard) -> None:
    """The stand-in as it is."""


def _values(_server: ThingsBoard) -> None:
    """Parsed once, as we believed before a real server was asked; for the rest of the process."""
    patch.object(telemetry_store, "stored", typed).start()


def _sessions(server: ThingsBoard) -> None:
    server.faults.refuse_subscription = always()


def _attributes(server: ThingsBoard) -> None:
    server.faults.drop_client_attributes = True
    server.faults.lose_subscription = always()


def _calls(server: ThingsBoard) -> None:
    server.faults.duplicate_rpc = always()


def _packages(server: ThingsBoard) -> None:
    server.faults.ota_chunk = lambda _number, data: data[::-1]


def _provisioning(server: ThingsBoard) -> None:
    server.provisioning.fail = always()


def _mqtt5(_server: ThingsBoard) -> None:
    """Every PUBACK says that all is well; for the rest of the process."""
    puback = mqtt_codec.puback
    patch.object(mqtt_codec, "puback", lambda version, mid, _reason=0: puback(version, mid)).start()


def _gateway(_server: ThingsBoard) -> None:
    """Every fifth record is acknowledged and stored nowhere; for the rest of the process."""
    store, counted = telemetry_store.TelemetryStore.store, itertools.count()

    def forgetful(self: telemetry_store.TelemetryStore, payload: bytes, arrival_ms: int) -> None:
        if next(counted) % 5 != 4:
            store(self, payload, arrival_ms)

    patch.object(telemetry_store.TelemetryStore, "store", forgetful).start()


#: Each makes the stand-in wrong in one group of statements: the tests of that group have to notice.
SABOTAGES: Mapping[str, Callable[[ThingsBoard], None]] = {
    "none": _no_sabotage,
    "values": _values,
    "sessions": _sessions,
    "attributes": _attributes,
    "calls": _calls,
    "packages": _packages,
    "provisioning": _provisioning,
    "mqtt5": _mqtt5,
    "gateway": _gateway,
}
