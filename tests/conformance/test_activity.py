"""What the server notes of a device's connection."""

from typing import Any

from tests.support.conformance import Made, Tenant, eventually
from tests.support.conformance_report import Report
from tests.support.stand_in_client import TELEMETRY


def noted(tenant: Tenant, device: Made, *keys: str) -> dict[str, Any]:
    """The attributes of the server's scope, when all of these are there and say something."""

    def found() -> dict[str, Any] | None:
        values = tenant.attributes(device, "SERVER_SCOPE")
        return values if all(values.get(key) for key in keys) else None

    return eventually(found, f"{keys} of {device.name}")


def test_a_connected_device_is_active(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    client = tenant.client(device)
    client.publish(TELEMETRY, '{"a": 1}')
    values = noted(tenant, device, "active", "lastConnectTime", "lastActivityTime")
    report.check("active", True, values["active"])
    report.check("it connected before it was heard", True, values["lastConnectTime"] <= values["lastActivityTime"])
    first = values["lastActivityTime"]

    def later() -> int | None:
        client.publish(TELEMETRY, '{"a": 2}')
        last: int = noted(tenant, device, "lastActivityTime")["lastActivityTime"]
        return last if last > first else None

    report.check("heard again", True, eventually(later, "a later lastActivityTime") > first)
    client.close()


def test_the_end_of_a_connection_is_noted(tenant: Tenant, report: Report) -> None:
    device = tenant.device()
    client = tenant.client(device)
    client.publish(TELEMETRY, '{"a": 1}')
    connected = noted(tenant, device, "lastConnectTime")["lastConnectTime"]
    client.close()
    values = noted(tenant, device, "lastDisconnectTime")
    report.check("it ended after it began", True, values["lastDisconnectTime"] >= connected)
    report.check("it is active for ten minutes more", True, values["active"])
