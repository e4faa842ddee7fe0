"""A tenant's hands on a server of any kind: what one test makes there, and takes away again."""

import os
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from tests.support.conformance_target import PatientRest, Target
from tests.support.stand_in_client import PahoDevice, RawSocket, connect_packet

#: How long a real server may take to store what it acknowledged.
PATIENCE_S = float(os.environ.get("TB_TEST_PATIENCE_S", "20"))
PREFIX = "conformance-"
#: What an earlier run left behind is taken away when it is as old as this: another may be under way.
LEFTOVER_S = 2 * 3600
#: Listing -> (where one of them is deleted, the field with its name). Devices first: packages are in use by them.
_LISTINGS = {
    "/api/tenant/devices": ("/api/device", "name"),
    "/api/otaPackages": ("/api/otaPackage", "title"),
    "/api/deviceProfiles": ("/api/deviceProfile", "name"),
    "/api/tenant/dashboards": ("/api/dashboard", "title"),
    "/api/customers": ("/api/customer", "title"),
}
#: In the order in which what was made is deleted; the rest comes last.
_ORDER = ("/api/device/", "/api/otaPackage/", "/api/user/")
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Made:
    """A device made for one test."""

    id: str
    name: str
    token: str


class NotOffered(Exception):  # noqa: N818 - what this server lacks
    """The server, or this user's rights there, lack what a test begins with; the text is the server's."""


def unique_name() -> str:
    """With its time, so that a later run knows leftovers by their age."""
    return f"{PREFIX}{int(time.time()):x}-{uuid.uuid4().hex[:12]}"


class Tenant:
    def __init__(self, rest: PatientRest, target: Target) -> None:
        self.rest = rest
        self.target = target
        self._made: list[str] = []
        self._profiles: dict[str, Mapping[str, str]] = {}

    # --- making things

    def device(self, **fields: Any) -> Made:
        name, token = unique_name(), uuid.uuid4().hex[:20]
        body = {"name": name, **({"type": "default"} if "deviceProfileId" not in fields else {}), **fields}
        saved = self.rest.post("/api/device", body, params={"accessToken": token}).json()
        self._made.append(f"/api/device/{saved['id']['id']}")
        return Made(saved["id"]["id"], name, token)

    def make(self, path: str, body: Mapping[str, Any], **options: Any) -> dict[str, Any]:
        """Something that a server may lack or refuse this user.

        Raises:
            NotOffered: it does.
        """
        answer = self.rest.post(path, body, status=None, **options)
        if answer.status_code in (403, 404, 405, 501):
            raise NotOffered(f"POST {path}: {answer.status_code} {answer.text[:200]}")
        self.rest.expect(answer, 200)
        saved: dict[str, Any] = answer.json()
        self._made.append(f"{path}/{saved['id']['id']}")
        return saved

    def package(self, data: bytes | None, version: str, kind: str = "SOFTWARE", **fields: Any) -> dict[str, str]:
        profile = self.rest.get("/api/deviceProfileInfo/default").json()["id"]
        title = unique_name()
        body = {"deviceProfileId": profile, "type": kind, "title": title, "version": version, **fields}
        identity: dict[str, str] = self.make("/api/otaPackage", body)["id"]
        if data is not None:
            query = {"checksumAlgorithm": "SHA256"}
            self.rest.post(f"/api/otaPackage/{identity['id']}", params=query, files={"file": ("package", data)})
        return identity

    def assign(self, device: Made, package: Mapping[str, str] | None, field: str = "softwareId") -> None:
        body = self.rest.get(f"/api/device/{device.id}").json()
        self.rest.post("/api/device", {**body, field: package})

    def profile(self, **fields: Any) -> dict[str, Any]:
        data = {
            "configuration": {"type": "DEFAULT"},
            "transportConfiguration": {"type": "DEFAULT"},
            "provisionConfiguration": {"type": "DISABLED", "provisionDeviceSecret": None},
        }
        body = {"name": unique_name(), "type": "DEFAULT", "transportType": "DEFAULT", "provisionType": "DISABLED"}
        return self.make("/api/deviceProfile", {**body, "profileData": data, **fields})

    def provisioning_key(self, provision_type: str) -> tuple[str, str]:
        """Key and secret of a profile made for this test."""
        key, secret = uuid.uuid4().hex[:20], uuid.uuid4().hex[:20]
        data = {
            "configuration": {"type": "DEFAULT"},
            "transportConfiguration": {"type": "DEFAULT"},
            "provisionConfiguration": {"type": provision_type, "provisionDeviceSecret": secret},
        }
        profile = self.profile(provisionType=provision_type, provisionDeviceKey=key, profileData=data)
        self._profiles[key] = profile["id"]
        return key, secret

    def profile_of(self, key: str) -> Mapping[str, str]:
        """The id of the profile that was made with this key."""
        return self._profiles[key]

    def adopt(self, name: str) -> str:
        """The id of a device that provisioned itself; it is deleted at the end like our own."""
        identity: str = self.rest.get("/api/tenant/devices", deviceName=name).json()["id"]["id"]
        self._made.append(f"/api/device/{identity}")
        return identity

    # --- attributes and values

    def telemetry_path(self, device: Made) -> str:
        return f"/api/plugins/telemetry/DEVICE/{device.id}"

    def share(self, device: Made, values: Mapping[str, Any]) -> None:
        self.rest.post(f"{self.telemetry_path(device)}/SHARED_SCOPE", values)

    def attributes(self, device: Made, scope: str) -> dict[str, Any]:
        found = self.rest.get(f"{self.telemetry_path(device)}/values/attributes/{scope}").json()
        return {item["key"]: item["value"] for item in found}

    def stored(self, device: Made, *keys: str) -> dict[str, Any]:
        """key -> latest value as it is stored; waits until each of the keys has one."""
        path = f"{self.telemetry_path(device)}/values/timeseries"

        def found() -> dict[str, Any] | None:
            latest = self.rest.get(path, keys=",".join(keys), useStrictDataTypes="true").json()
            values = {key: latest[key][0]["value"] for key in keys if key in latest}
            return values if all(values.get(key) is not None for key in keys) else None

        return eventually(found, f"{keys} of {device.name}")

    def series(self, device: Made, key: str, start_ms: int, end_ms: int, limit: int = 20_000) -> list[Any]:
        """The values of a range as they are stored, in the order of time."""
        path = f"{self.telemetry_path(device)}/values/timeseries"
        span: dict[str, Any] = {"startTs": start_ms, "endTs": end_ms, "limit": limit, "orderBy": "ASC"}
        found = self.rest.get(path, keys=key, useStrictDataTypes="true", **span).json()
        return [point["value"] for point in found.get(key, [])]

    def client(self, device: Made, **options: Any) -> PahoDevice:
        return self.target.paho(device.token, **options)

    def raw(self, device: Made, level: int = 4) -> RawSocket:
        """A bare socket after its CONNACK 0."""
        raw = self.target.raw().send(connect_packet(device.token, level=level))
        assert raw.packet()[3:4] == b"\x00", "CONNACK"
        return raw

    # --- taking away

    def clean_up(self) -> None:
        """Everything that can be deleted is, whatever fails; then AssertionError for what could not."""
        failed = [said for path in sorted(self._made, key=_place_in_order) if (said := self._deleted(path))]
        self.rest.close()
        assert not failed, f"left behind: {failed}"

    def sweep(self) -> list[str]:
        """Delete what an earlier run left behind; return the names."""
        swept = []
        for listing, (path, field) in _LISTINGS.items():
            for entry in list(self._pages(listing)):
                if is_leftover(str(entry.get(field)), time.time()) and not self._deleted(f"{path}/{entry['id']['id']}"):
                    swept.append(str(entry[field]))
        return swept

    def _pages(self, listing: str) -> Iterable[Mapping[str, Any]]:
        page, more = 0, True
        while more:
            answer = self.rest.get(listing, status=None, pageSize=100, page=page, textSearch=PREFIX)
            body = answer.json() if answer.ok else {}
            yield from body.get("data", ())
            page, more = page + 1, bool(body.get("hasNext"))

    def _deleted(self, path: str) -> str:
        """Empty when it is gone."""
        answer = self.rest.delete(path, status=None)
        return "" if answer.status_code in (200, 404) else f"{path}: {answer.status_code} {answer.text[:200]}"


def _place_in_order(path: str) -> int:
    return next((place for place, beginning in enumerate(_ORDER) if path.startswith(beginning)), len(_ORDER))


def is_leftover(name: str, now_s: float) -> bool:
    """Named by `unique_name` two hours ago or more."""
    time_of_it = name.removeprefix(PREFIX).partition("-")[0]
    try:
        return name.startswith(PREFIX) and now_s - int(time_of_it, 16) > LEFTOVER_S
    except ValueError:
        return False


def eventually(probe: Callable[[], Found | None], what: str) -> Found:
    """The first answer that is not None: a real server stores later than it acknowledges."""
    deadline_s = time.monotonic() + PATIENCE_S
    while (found := probe()) is None:
        assert time.monotonic() < deadline_s, f"never came: {what}"
        time.sleep(0.02)
    return found
