"""The stand-in's pure rules: topics, credentials, attribute requests, rate limits, triggers, checksums."""

from typing import Any

import pytest

from teg.simulator.thingsboard import attributes, topics
from teg.simulator.thingsboard.credentials import Credentials, find_device, in_version, refusal, wants_provisioning
from teg.simulator.thingsboard.faults import Faults, always, every, never, next_n, when
from teg.simulator.thingsboard.mqtt_codec import V5, V311, Connect
from teg.simulator.thingsboard.ota_packages import Downloads, Package, PackageError, all_attributes, checksum
from teg.simulator.thingsboard.payloads import BadPayload, BadRequestId, ConversionFailed
from teg.simulator.thingsboard.provisioning import parse_request
from teg.simulator.thingsboard.rate_limits import DeviceLimiter, RateLimits, TokenBucket
from teg.simulator.thingsboard.topics import Kind


@pytest.mark.parametrize(
    ("topic", "kind", "number"),
    [
        ("v1/devices/me/telemetry", Kind.TELEMETRY, 0),
        ("v2/t", Kind.TELEMETRY, 0),
        ("v2/t/j", Kind.TELEMETRY, 0),
        ("v2/t/p", Kind.PROTOBUF, 0),
        ("v1/devices/me/attributes", Kind.ATTRIBUTES, 0),
        ("v1/devices/me/attributes/request/17", Kind.ATTRIBUTE_REQUEST, 17),
        ("v1/devices/me/attributes/request/-1", Kind.ATTRIBUTE_REQUEST, -1),
        ("v2/a/req/2147483647", Kind.ATTRIBUTE_REQUEST, 2147483647),
        ("v2/a/req/j/5", Kind.ATTRIBUTE_REQUEST, 5),
        ("v2/a/req/p/5", Kind.PROTOBUF, 5),
        ("v1/devices/me/rpc/response/3", Kind.RPC_RESPONSE, 3),
        ("v2/r/res/j/3", Kind.RPC_RESPONSE, 3),
        ("v1/devices/me/rpc/request/4", Kind.CLIENT_RPC, 4),
        ("v1/devices/me/claim", Kind.CLAIM, 0),
        ("v2/sw/request/1/chunk/2", Kind.PACKAGE_CHUNK, 1),
        ("v2/sw/request/x/chunk/2", Kind.UNKNOWN, 0),
        ("v1/gateway/telemetry", Kind.GATEWAY, 0),
        ("v1/devices/me/telemetry/", Kind.UNKNOWN, 0),
        ("", Kind.UNKNOWN, 0),
    ],
)
def test_routes(topic: str, kind: Kind, number: int) -> None:
    route = topics.route(topic)
    assert (route.kind, route.id) == (kind, number)


@pytest.mark.parametrize("number", ["", "x", "1.5", " 1", "2147483648", "-2147483649", "j/x", "1" * 5000])
def test_bad_request_ids(number: str) -> None:
    for prefix in ("v2/a/req/", "v1/devices/me/rpc/response/"):
        with pytest.raises(BadRequestId):
            topics.route(prefix + number)
    with pytest.raises(ConversionFailed):
        topics.route(f"v1/devices/me/rpc/request/{number}")


def test_chunk_numbers_that_do_not_fit() -> None:
    with pytest.raises(ConversionFailed):
        topics.route("v2/sw/request/1/chunk/99999999999")


def test_every_spelling_has_its_filters() -> None:
    assert {"v1/devices/me/rpc/request/+", "v2/r/req/+", "v2/r/req/j/+"} <= topics.RPC_FILTERS
    assert {"v1/devices/me/attributes", "v2/a", "v2/a/j"} <= topics.ATTRIBUTE_FILTERS
    assert "v2/fw/response/+" not in topics.FILTERS
    assert {"v1/gateway/attributes", "v1/gateway/rpc"} <= set(topics.FILTERS)
    assert "v1/gateway/telemetry" not in topics.FILTERS
    assert topics.chunk_filter("sw") in topics.FILTERS


def connect(user: str | None = None, password: str | None = None, client_id: str = "", version: int = V311) -> Connect:
    return Connect(version, client_id, user, password.encode() if password else None, True, 60)


class Holder:
    def __init__(self, **fields: str) -> None:
        self.credentials: Credentials | None = Credentials(**fields) if fields else None


def test_devices_are_found_by_what_was_configured() -> None:
    token, both, by_id, revoked = (
        Holder(token="T"),
        Holder(user_name="u", password="p"),
        Holder(client_id="c"),
        Holder(),
    )
    devices = [revoked, token, both, by_id]
    assert find_device(connect("T", "ignored", "any"), devices) is token
    assert find_device(connect("u", "p"), devices) is both
    assert find_device(connect("u", "x"), devices) is None
    assert find_device(connect(client_id="c"), devices) is by_id
    assert find_device(connect(), devices) is None


@pytest.mark.parametrize(
    ("login", "v3", "v5"),
    [
        ({"user": "x"}, 5, 0x86),
        ({"user": "x", "password": "p", "client_id": "c"}, 5, 0x86),
        ({"password": "p"}, 5, 0x86),
        ({"client_id": "c"}, 2, 0x85),
        ({"client_id": "  "}, 5, 0x87),
        ({}, 5, 0x87),
    ],
)
def test_refusals(login: dict[str, Any], v3: int, v5: int) -> None:
    assert refusal(connect(**login)) == v3
    assert refusal(connect(**login, version=V5)) == v5


def test_codes_of_both_versions() -> None:
    assert [in_version(V311, code) for code in (0, 3, 5)] == [0, 3, 5]
    assert [in_version(V5, code) for code in (0, 3, 5, 99)] == [0, 0x88, 0x87, 0x80]


def test_provisioning_by_user_name_or_client_id() -> None:
    assert wants_provisioning(connect("provision"))
    assert wants_provisioning(connect(client_id="provision"))
    assert not wants_provisioning(connect("provision2", client_id="x"))


@pytest.mark.parametrize(
    ("payload", "client", "shared"),
    [
        (b"{}", [], []),
        (b'{"other": 1}', [], []),
        (b'{"sharedKeys": "a,b"}', None, ["a", "b"]),
        (b'{"sharedKeys": "a, b,,c,,"}', None, ["a", " b", "", "c"]),
        (b'{"clientKeys": "a", "sharedKeys": ""}', ["a"], [""]),
        (b'{"clientKeys": 5, "sharedKeys": true}', ["5"], ["true"]),
        (b'{"clientKeys": ["a,b"]}', ["a", "b"], None),
    ],
)
def test_attribute_requests(payload: bytes, client: list[str] | None, shared: list[str] | None) -> None:
    assert attributes.parse_request(payload) == (client, shared)


def test_an_empty_name_is_noticed() -> None:
    for payload in (b'{"sharedKeys": ""}', b'{"clientKeys": "", "sharedKeys": "a"}', b'{"sharedKeys": "a,,b"}'):
        assert attributes.has_empty_name(*attributes.parse_request(payload))
    for payload in (b"{}", b'{"sharedKeys": "a, "}', b'{"clientKeys": "a", "sharedKeys": "b"}'):
        assert not attributes.has_empty_name(*attributes.parse_request(payload))


@pytest.mark.parametrize("payload", [b"[]", b"1", b"", b'{"sharedKeys": null}', b'{"sharedKeys": ["a", "b"]}'])
def test_bad_attribute_requests(payload: bytes) -> None:
    with pytest.raises(BadPayload):
        attributes.parse_request(payload)


def test_answers_leave_out_what_is_not_there() -> None:
    store = attributes.AttributeStore()
    store.shared = {"a": 1, "b": 2}
    assert store.answer(None, ["a", "x"]) == {"shared": {"a": 1}}
    assert store.answer([], []) == {"shared": {"a": 1, "b": 2}}
    assert store.answer(["a"], ["x"]) == {}
    store.merge_client(b'{"a": "07", "n": null, "b": 1e7, "c": 25000000.0, "d": 2.5e19}')
    assert store.answer([], None) == {"client": {"a": 7, "b": 10**7, "c": 25 * 10**6, "d": "25000000000000000000"}}


def test_bucket_refills_continuously() -> None:
    bucket = TokenBucket("10:2")
    assert [bucket.take(5, 0.0), bucket.take(5, 0.0), bucket.take(1, 0.0)] == [True, True, False]
    assert [bucket.take(1, 0.1), bucket.take(1, 0.2), bucket.take(1, 0.2)] == [False, True, False]
    assert [bucket.take(10, 99.0), bucket.take(1, 99.0)] == [True, False]


def test_all_bandwidths_must_have_room_and_failing_takes_nothing() -> None:
    bucket = TokenBucket("10:1,15:60")
    assert bucket.take(10, 0.0)
    assert not bucket.take(10, 1.0)
    assert bucket.take(5, 1.0)
    assert not bucket.take(16, 1e9)


def test_no_limit_at_all() -> None:
    assert TokenBucket(None).take(10**9, 0.0)
    limiter = DeviceLimiter(RateLimits())
    assert not limiter.counts_points
    assert limiter.admits_points(10**6, 0.0)


def test_publishes_without_points_count_as_plain_messages() -> None:
    limiter = DeviceLimiter(RateLimits(messages="1:60", telemetry_messages="1:60", telemetry_data_points="5:60"))
    assert limiter.counts_points
    assert [limiter.admits_points(0, 0.0), limiter.admits_points(0, 0.0)] == [True, False]
    assert [limiter.admits_points(5, 0.0), limiter.admits_points(1, 0.0)] == [True, False]


@pytest.mark.parametrize("spec", ["", "1", "a:b", "0:1", "1:0", "1:1,", "1:1;2:2", "-1:1"])
def test_specs_that_are_none(spec: str) -> None:
    with pytest.raises(ValueError, match="CAPACITY:SECONDS"):
        RateLimits.checked(spec)


def test_a_single_spec_limits_both_kinds_of_messages() -> None:
    assert RateLimits.checked("20:1,600:60") == RateLimits("20:1,600:60", "20:1,600:60", None)
    assert RateLimits.of(None) == RateLimits()


def test_triggers() -> None:
    def fired(trigger: Any, times: int = 6) -> list[int]:
        return [number for number in range(1, times + 1) if trigger.fires()]

    assert fired(never()) == []
    assert fired(always()) == [1, 2, 3, 4, 5, 6]
    assert fired(next_n(2)) == [1, 2]
    assert fired(every(3)) == [3, 6]
    assert fired(every(2, times=2)) == [2, 4]
    answers = iter([False, True, True, True])
    chosen = when(lambda _message: next(answers), times=2)
    assert fired(chosen, 4) == [2, 3]
    assert (chosen.seen, chosen.struck) == (4, 2)


def test_faults_can_be_cleared() -> None:
    faults = Faults(freeze=True, connack_codes=[3], reset=always())
    faults.clear()
    assert not faults.freeze
    assert faults.connack_codes == []
    assert not faults.reset.fires()


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        ("MD5", "5d41402abc4b2a76b9719d911017c592"),
        ("SHA256", "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"),
        ("CRC32", "86a61036"),
        ("MURMUR3_32", "47fa8b24"),
        ("MURMUR3_128", "029bbd41b3a7d8cb191dae486a901e5b"),
    ],
)
def test_checksums_of_hello(algorithm: str, expected: str) -> None:
    assert checksum(algorithm, b"hello") == expected


def test_longer_checksums_and_an_unknown_one() -> None:
    assert len(checksum("SHA384", b"")) == 96
    assert len(checksum("SHA512", b"")) == 128
    with pytest.raises(ValueError, match="SHA1"):
        checksum("SHA1", b"")


def test_murmur_reference_values() -> None:
    fox = b"The quick brown fox jumps over the lazy dog"
    assert checksum("MURMUR3_32", fox) == 0x2E4FF723.to_bytes(4, "little").hex()
    assert checksum("MURMUR3_32", b"") == "00000000"
    assert checksum("MURMUR3_128", fox) == "6c1b07bc7bbc4be347939ac4a93c437a"


def test_package_attributes() -> None:
    elsewhere = Package("ctl", "v1", url="-")
    assert elsewhere.attributes("sw") == {"sw_title": "ctl", "sw_version": "v1", "sw_url": "-"}
    assert elsewhere.stale_attributes("sw") == ["sw_tag", "sw_size", "sw_checksum", "sw_checksum_algorithm"]
    complete = Package("ctl", "v1", url="-", algorithm="SHA256", checksum="ab")
    assert complete.attributes("sw")["sw_checksum_algorithm"] == "SHA256"
    assert complete.stale_attributes("sw") == ["sw_tag", "sw_size"]
    stored = Package("ctl", "v1", b"data", tag="t")
    assert stored.stale_attributes("fw") == ["fw_url"]
    assert stored.targets("fw", 7) == {
        "target_fw_title": "ctl",
        "target_fw_version": "v1",
        "target_fw_tag": "t",
        "target_fw_ts": 7,
    }
    assert all_attributes("sw")[0] == "sw_title"


def test_downloads() -> None:
    downloads, package = Downloads(), Package("ctl", "v1", b"0123456789")
    assert not downloads.is_started("sw", 1)
    assert [downloads.chunk("sw", 1, number, b"4", package) for number in range(4)] == [b"0123", b"4567", b"89", b""]
    assert downloads.is_started("sw", 1)
    assert downloads.chunk("sw", 1, 1, b"", None) == b"4567"
    assert downloads.chunk("sw", 2, 0, b"", package) == b"0123456789"
    assert downloads.chunk("sw", 2, 1, b"", package) == b""


@pytest.mark.parametrize(
    ("size", "package", "text"),
    [
        (b"4", None, "NOT_FOUND"),
        (b"4", Package("ctl", "v1", url="http://x"), "FAILURE"),
        (b"65537", Package("ctl", "v1", b"x"), "PAYLOAD_TOO_LARGE"),
        (b"four", Package("ctl", "v1", b"x"), ""),
    ],
)
def test_download_errors(size: bytes, package: Package | None, text: str) -> None:
    with pytest.raises(PackageError) as caught:
        Downloads().chunk("sw", 1, 0, size, package)
    assert caught.value.text == text


def test_provision_requests() -> None:
    request = parse_request(b'{"deviceName": "d", "provisionDeviceKey": "k", "provisionDeviceSecret": "s"}')
    assert (request.key, request.secret, request.device_name) == ("k", "s", "d")
    assert request.credentials_type == "ACCESS_TOKEN"
