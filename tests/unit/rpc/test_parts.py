"""The pure parts: answers cut to size, secrets redacted, the token bucket, log level, clock."""

import json
import re
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from teg.adapters.clock import SystemClock
from teg.domain.redaction import redacted, redacted_command, redacted_json, redacted_text
from teg.domain.rpc.log_level import LogLevel
from teg.domain.server import TokenBucket, fitted
from teg.domain.server.wire import MAX_PAYLOAD_BYTES, encode_rpc_response
from tests.support.rpc import FakeClock

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


# --- answers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", ["Pong", ["a", "b"], {"a": 1}, None, 5, ""])
def test_what_fits_stays_as_it_is(message: Any) -> None:
    assert fitted(message) == message


@pytest.mark.parametrize("character", ["x", "ä", "\x00", "\\", "😀", '"'])
@pytest.mark.parametrize("length", [9_000, 59_980, 60_000, 200_000])
def test_text_keeps_head_and_tail_and_uses_the_room(character: str, length: int) -> None:
    text = "HEAD" + character * length + "TAIL"
    cut = fitted(text)
    size = len(encode_rpc_response(cut))
    assert size <= MAX_PAYLOAD_BYTES
    if len(encode_rpc_response(text)) <= MAX_PAYLOAD_BYTES:
        assert cut == text
    else:
        assert cut.startswith("HEAD") and cut.endswith("TAIL")
        assert size > MAX_PAYLOAD_BYTES - 50
        left_out = int(re.search(r"\[(\d+) characters left out", cut)[1])  # type: ignore[index]
        assert left_out == len(text) - (len(cut) - len(re.search(r"\n….*…\n", cut)[0]))  # type: ignore[index]


def test_a_list_keeps_its_last_lines() -> None:
    lines = [f"line {n}: {'x' * 100}" for n in range(2_000)]
    cut = fitted(lines)
    assert len(encode_rpc_response(cut)) <= MAX_PAYLOAD_BYTES
    assert cut[-1] == lines[-1]
    assert cut[0] == f"… [{2_000 - len(cut) + 1} earlier lines left out: the answer was too long]"


def test_one_line_that_is_too_long_leaves_only_the_note() -> None:
    assert fitted(["x" * 70_000]) == ["… [1 earlier lines left out: the answer was too long]"]


def test_anything_else_becomes_text() -> None:
    cut = fitted({"letters": ["x" * 1_000] * 100})
    assert isinstance(cut, str) and cut.startswith('{"letters"')
    assert len(encode_rpc_response(cut)) <= MAX_PAYLOAD_BYTES


def test_text_without_a_utf8_form_can_be_sent() -> None:
    assert fitted("file \udcff") == "file ?"


@given(JSON)
def test_whatever_is_answered_fits_and_is_json(message: Any) -> None:
    payload = encode_rpc_response(fitted(message))
    assert len(payload) <= MAX_PAYLOAD_BYTES
    assert json.loads(payload).keys() == {"message"}


# --- redaction -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        {"password": "hunter2"},
        {"deep": [{"API_KEY": "hunter2"}]},
        {"auth": {"accessToken": {"value": "hunter2"}}},
        ["curl", "--token", "hunter2"],
        ["mysql", "--password=hunter2"],
        ["sh", "-c", "export SECRET_THING='hunter2'"],
        ["curl", "-H", "Authorization: Bearer hunter2"],
        "https://user:hunter2@example.org/x",
        {"command": ["git", "clone", "https://user:hunter2@example.org"]},
        {"privateKey": ["hunter2"]},
        ["mysql", "-phunter2"],
        ["sshpass", "-p", "hunter2", "ssh", "pi@x"],
        ["curl", "-u", "bob:hunter2", "https://x"],
        ["curl", "-ubob:hunter2", "https://x"],
        ["curl", "--user", "bob:hunter2"],
        ["nmcli", "device", "wifi", "connect", "site", "password", "hunter2"],
        "mysql -phunter2 -e 'select 1'",
        "sshpass -p hunter2 ssh pi@x",
        "mosquitto_pub -u bob -P hunter2 -t x",
        "redis-cli -a hunter2 ping",
        "curl -u bob:hunter2 https://x",
        "curl --user=bob:hunter2 https://x",
        "wget --password hunter2 https://x",
        "nmcli device wifi connect site password hunter2",
        "PGPASSWORD=hunter2 psql",
        "export MYSQL_PWD='hunter2'; mysql",
        {"psk": "hunter2"},
        {"wifi": {"ssid": "site", "pin": "hunter2"}},
        'network={ ssid="site" psk="hunter2" }',
        '{"network": {"psk": "hunter2"}}',
        "psk=hunter2",
        "Proxy-Authorization: Basic hunter2",
        "X-Api-Key: hunter2",
        "Cookie: session=hunter2; other=hunter2",
        "Authorization: Digest username=bob, response=hunter2",
        "redis://:hunter2@localhost:6379/0",
        "postgresql://bob:p@ss/hunter2@localhost/db",
        "amqp://bob:hunter2@localhost",
        "postgresql://localhost/db?user=bob&password=hunter2",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2\n-----END OPENSSH PRIVATE KEY-----",
        "https://ghp_hunter2hunter2hunter2@github.com/x",
        "jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJodW50ZXIyIn0.hunter2",
        "password = hunter2 with spaces hunter2",
        'password: "with spaces hunter2"',
    ],
)
def test_secrets_are_masked_wherever_they_stand(value: Any) -> None:
    assert "hunter2" not in redacted_json(value)
    assert "***" in redacted_json(value)


def test_the_rest_stays_readable() -> None:
    params = {"command": ["df", "-h", "/data"], "timeout_s": 10}
    assert orjson.loads(redacted_json(params)) == params
    for text in (
        "https://example.org/a?b=c",
        "https://example.org:8443/a?mail=b@c",
        "connected to demo.example:8883",
        "the token was refused by the server",
        "ssh://git@example.org/x",
        "RPC ping (id 7) answered",
        "mkdir -p /data/x",
    ):
        assert redacted_text(text) == text


def test_masking_is_bounded_in_depth_and_length() -> None:
    deep: Any = "x"
    for _ in range(200):
        deep = [deep]
    assert "…" in redacted_json(deep)
    assert len(redacted_json(["x" * 1_900] * 500)) == 2_000


def test_only_so_much_text_is_looked_at_that_none_can_make_this_slow() -> None:
    """Without the bound each of these took minutes: the patterns are quadratic in the worst case."""
    assert len(redacted_text("key" * 500_000)) == 2_000
    assert len(redacted_text("://" * 100_000)) == 2_000
    for start in (
        "key",
        "://a:",
        " -p",
        " -u",
        'key="',
        "eyJaaaaaa.",
        "Bearer ",
        "psk=\\",
        "key ",
        "-----BEGIN PRIVATE KEY-----",
    ):
        before = time.thread_time()
        redacted_command((start * 20_000)[:20_000])
        redacted_text((start * 20_000)[:20_000], 20_000)
        assert time.thread_time() - before < 2, start
    assert redacted(["-" * 100_000 + "key" * 10_000, "x"])[1] == "x"


NAMES = ("password", "api_key", "psk", "wifiPsk", "db-pwd", "ACCESS_TOKEN", "clientSecret", "passphrase", "pin")
#: How a secret is written behind its name: JSON, environment, header, flag, YAML, query.
SPELLINGS = ('{{"{0}": "{1}"}}', "{0}={1}", "{0}: {1}", "--{0}={1}", "--{0} {1}", "{0} = '{1}'", "?x=y&{0}={1}&z=1")


@given(
    st.sampled_from(NAMES),
    st.sampled_from(SPELLINGS),
    st.from_regex(r"[A-Za-z0-9+/!#%$^_]{8,40}", fullmatch=True),
    st.text(st.characters(codec="ascii", exclude_categories=["Cc"], exclude_characters="'\"\\"), max_size=30),
)
def test_a_secret_behind_its_name_is_hidden_in_every_spelling(name: str, how: str, secret: str, before: str) -> None:
    text = f"{before} {how.format(name, secret)}"
    assert secret not in redacted_json({"command": text})
    assert secret not in redacted_json(["sh", "-c", text])
    if how != "--{0} {1}":  # in prose a word behind a name is a word
        assert secret not in redacted_text(text)


@given(JSON)
def test_masking_never_fails(value: Any) -> None:
    assert len(redacted_json(value)) <= 2_000


# --- rate, level, clock ------------------------------------------------------------------------------------


def test_the_bucket_refills_up_to_its_burst() -> None:
    clock = FakeClock()
    bucket = TokenBucket(clock, per_s=5, burst=20)
    assert [bucket.take() for _ in range(21)] == [True] * 20 + [False]
    clock.advance(0.2)
    assert [bucket.take(), bucket.take()] == [True, False]
    clock.advance(3600)
    assert [bucket.take() for _ in range(21)] == [True] * 20 + [False]
    clock.uptime_s -= 1_000
    assert bucket.take() is False


def test_a_temporary_level_is_taken_back_once() -> None:
    clock, levels = FakeClock(), list[str]()
    level = LogLevel(levels.append, "WARNING", clock)
    level.set("DEBUG", 1)
    assert level.current == "DEBUG"
    clock.advance(61)
    level.revert_if_due()
    level.revert_if_due()
    assert levels == ["DEBUG", "WARNING"] and level.current == "WARNING"


def test_the_clock_of_this_machine() -> None:
    clock = SystemClock()
    assert abs(clock.now_ms() / 1000 - time.time()) < 5
    uptime_s = float(Path("/proc/uptime").read_text().split()[0])
    assert abs(clock.monotonic_s() - uptime_s) < 5, "seconds since boot, not since anything else"
    assert clock.boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip() == SystemClock().boot_id()


def test_a_boot_without_a_name_is_never_taken_for_another(tmp_path: Path) -> None:
    assert SystemClock(tmp_path / "none").boot_id() != SystemClock(tmp_path / "none").boot_id()
