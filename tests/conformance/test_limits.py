"""Rate limits of a tenant's profile, as far as the server that is tested has some."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from teg.simulator.thingsboard.rate_limits import RateLimits
from teg.simulator.thingsboard.server_limits import ServerLimits
from tests.conformance.stand_ins import named, stand_in
from tests.support.conformance import Made, Tenant
from tests.support.conformance_report import Report
from tests.support.conformance_target import Target
from tests.support.stand_in_client import (
    ATTRIBUTES,
    TELEMETRY,
    RawSocket,
    connect_packet,
    publish_packet,
    subscribe_packet,
)

#: Refilled so slowly that no test sees it; the REST API's so that one does.
LIMITS = RateLimits(messages="20:6000", telemetry_messages="12:6000", telemetry_data_points="50:6000")
REST_LIMIT = "20:10"
#: A server that has not said "too many" by then has no limit that a test could meet.
REQUESTS = 2000
CLOSED_AFTER = 5000


@pytest.fixture(scope="module")
def limited(target: Target) -> Iterator[Target]:
    if not target.is_stand_in:
        yield named("TB_TEST_LIMITED_USER") or target
        return
    with stand_in(ServerLimits(rate_limits=LIMITS)) as server:
        yield Target(server.rest_url, server.host, server.port)


@pytest.fixture
def crowded(target: Target, limited: Target) -> Iterator[Target]:
    """A tenant's limit of the REST API would slow every other test down."""
    if not target.is_stand_in:
        yield limited
        return
    with stand_in(ServerLimits(rest_rate_limit=REST_LIMIT)) as server:
        yield Target(server.rest_url, server.host, server.port)


@pytest.fixture
def tenant(limited: Target) -> Iterator[Tenant]:
    tenant = Tenant(limited.rest(), limited)
    yield tenant
    tenant.clean_up()


@dataclass(frozen=True, slots=True)
class Limit:
    """The tightest bandwidth of one limit, and how long it takes to refill by one."""

    capacity: int
    seconds: int

    @classmethod
    def parsed(cls, text: str) -> "Limit":
        return min((cls(*map(int, part.split(":"))) for part in text.split(",")), key=lambda each: each.capacity)


def announced(tenant: Tenant, report: Report, name: str, statement: str) -> Limit:
    """What `getSessionLimits` tells; the test ends here when there is none."""
    client = tenant.client(tenant.device())
    client.publish("v1/devices/me/rpc/request/1", '{"method": "getSessionLimits", "params": {}}')
    limits = json.loads(client.wait_message("v1/devices/me/rpc/response/1")[0])["rateLimits"]
    client.close()
    if not limits[name]:
        report.not_checked(statement, f"this tenant's profile limits no {name}: TB_TEST_LIMITED_USER")
    limit = Limit.parsed(limits[name])
    if limit.capacity > CLOSED_AFTER:
        report.not_checked(statement, f"{limits[name]} is too wide a limit for a test")
    return limit


def flood(tenant: Tenant, device: Made, payload: bytes, count: int, level: int = 4) -> int:
    """Publish so often; return how many were acknowledged before the connection ended, -1 if it did not."""
    properties = b"\x00" if level == 5 else b""
    with tenant.raw(device, level) as raw:
        packets = [publish_packet(TELEMETRY, properties + payload, number + 1) for number in range(count)]
        try:
            seen = raw.send(*packets).rest()
        except TimeoutError:
            return -1
        except OSError:  # closed while we still sent
            return 0
        return sum(seen[place : place + 2] == b"\x40\x02" for place in range(0, len(seen) - 3, 4))


@pytest.mark.parametrize(
    ("name", "payload"), [("messages", b"{}"), ("telemetryMessages", b'{"a": 1}')], ids=["messages", "telemetry"]
)
def test_more_messages_than_the_limit(tenant: Tenant, report: Report, name: str, payload: bytes) -> None:
    statement = f"{name}: beyond the limit the connection ends without a packet"
    limit = announced(tenant, report, name, statement)
    acknowledged = flood(tenant, tenant.device(), payload, 2 * limit.capacity + 20)
    report.check(statement, True, 0 <= acknowledged < 2 * limit.capacity + 20)


@pytest.mark.parametrize(("level", "code"), [(4, 3), (5, 0x9F)], ids=["3.1.1", "5"])
def test_the_next_login(tenant: Tenant, report: Report, level: int, code: int) -> None:
    statement = f"CONNACK while there are no tokens left, protocol level {level}"
    limit = announced(tenant, report, "messages", statement)
    device = tenant.device()
    flood(tenant, device, b"{}", 2 * limit.capacity + 20, level)
    with tenant.target.raw().send(connect_packet(device.token, level=level)) as raw:
        report.check(statement, code, raw.packet()[3])
    other = tenant.client(tenant.device())
    report.check("other devices go on", 0, other.publish(TELEMETRY, "{}"))
    other.close()


def test_a_batch_that_is_larger_than_the_limit(tenant: Tenant, report: Report) -> None:
    statement = "more data points in one message than the limit: never taken"
    limit = announced(tenant, report, "telemetryDataPoints", statement)
    device = tenant.device()
    values = ", ".join(f'"k{number}": 1' for number in range(limit.capacity + 1))
    for _ in range(2):
        with tenant.raw(device) as raw:
            report.check(statement, b"", raw.send(publish_packet(TELEMETRY, f"{{{values}}}".encode())).rest())
    client = tenant.client(device)
    report.check("a smaller one passes", 0, client.publish(TELEMETRY, '{"k1": 1, "k2": 1}'))
    client.close()


def test_a_subscription_beyond_the_limit(tenant: Tenant, report: Report) -> None:
    """The SUBACK grants it, and it is not registered."""
    statement = "pushes to a subscription that came when there were no tokens left"
    limit = announced(tenant, report, "messages", statement)
    if limit.seconds / limit.capacity < 10:
        report.not_checked(statement, "tokens come back too fast: a limit of less than six messages a minute is needed")
    device = tenant.device()
    with tenant.raw(device) as raw:
        used_up(raw, limit.capacity - 1)
        raw.send(subscribe_packet(1, (ATTRIBUTES, 1)))
        report.check("SUBACK when there are no tokens left", b"\x90\x03\x00\x01\x01", raw.packet())
        tenant.share(device, {"a": 1})
        tenant.share(device, {"a": 2})
        raw.send(publish_packet(TELEMETRY, b'{"has": "points"}', 9))
        report.check(statement, b"\x40\x02\x00\x09", raw.packet())


def used_up(raw: RawSocket, count: int) -> None:
    for number in range(count):
        raw.send(publish_packet(TELEMETRY, b"{}", number + 1))
        assert raw.packet()[:2] == b"\x40\x02", "PUBACK"


def test_too_many_requests_to_the_rest_api(crowded: Target, report: Report) -> None:
    path, rest = "/api/deviceProfileInfo/default", crowded.rest()
    answers = (rest.get_once(path) for _ in range(REQUESTS))
    refused = next((answer for answer in answers if answer.status_code == 429), None)
    if refused is None:
        report.not_checked("429 of the REST API", f"none within {REQUESTS} requests: TB_TEST_LIMITED_USER")
    body = {field: refused.json().get(field) for field in ("status", "message", "errorCode")}
    expected = {"status": 429, "message": "Too many requests for current tenant!", "errorCode": 33}
    report.check("429 of the REST API", expected, body)
    report.check("after a while it answers again", 200, rest.get(path).status_code)
    rest.close()
