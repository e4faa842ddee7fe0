"""Every variable, good and bad; only InvalidSettings ever escapes, naming everything."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teg.settings import ConnectionSettings, InvalidSettings, ProxyAddress, Settings
from tests.support.environments import REQUIRED, ROOT, problems, read, variables_read

GIB = 1 << 30


HERE = str(ROOT / "pyproject.toml")


FOLDER = str(ROOT / "tests")


#: variable, text, field, value
GOOD: list[tuple[str, str, str, Any]] = [
    ("TB_HOST", "10.0.0.7", "tb_host", "10.0.0.7"),
    ("TB_HOST", " things.example.org ", "tb_host", "things.example.org"),
    ("TB_PORT", "1", "tb_port", 1),
    ("TB_PORT", "65535", "tb_port", 65535),
    ("TB_TLS", "off", "tb_tls", False),
    ("TB_TLS", "FALSE", "tb_tls", False),
    ("TB_TLS", "1", "tb_tls", True),
    ("TB_TLS", "", "tb_tls", True),
    ("TB_TRANSPORT", "WSS", "tb_tls", True),
    ("TB_TRANSPORT", "ws", "tb_tls", False),
    ("TB_TRANSPORT", "tcp", "connection", ConnectionSettings()),
    ("TB_TRANSPORT", "wss", "connection", ConnectionSettings(transport="wss", websocket_path="/mqtt")),
    ("TB_WEBSOCKET_PATH", "/api/mqtt?site=7", "connection", ConnectionSettings()),
    ("TB_PROXY", "", "connection", ConnectionSettings()),
    ("TB_PROXY", "http://proxy:3128", "connection", ConnectionSettings(proxy=ProxyAddress("proxy", 3128))),
    ("TB_PROXY", "http://[::1]:3128/", "connection", ConnectionSettings(proxy=ProxyAddress("::1", 3128))),
    (
        "TB_PROXY",
        "http://us%40er:p%3Aw%C3%BC@proxy:80",
        "connection",
        ConnectionSettings(proxy=ProxyAddress("proxy", 80, "us@er", "p:wü")),
    ),
    ("TB_CLIENT_CERT", "", "connection", ConnectionSettings()),
    ("TB_CLIENT_KEY", "", "connection", ConnectionSettings()),
    ("TB_MQTT_CLIENT_ID", "pi-07", "connection", ConnectionSettings(client_id="pi-07")),
    ("TB_MQTT_USER", "u", "connection", ConnectionSettings(user="u")),
    ("TB_MQTT_PASSWORD", "", "connection", ConnectionSettings()),
    ("TB_MQTT_VERSION", "", "tb_mqtt_version", "3.1.1"),
    ("TB_MQTT_VERSION", "Auto", "tb_mqtt_version", "auto"),
    ("THINGSBOARD_CA_CERT", HERE, "ca_cert", Path(HERE)),
    ("THINGSBOARD_CA_CERT", "", "ca_cert", None),
    ("THINGSBOARD_ACCESS_TOKEN", "/run/secrets/token", "access_token_path", Path("/run/secrets/token")),
    ("THINGSBOARD_PROVISION_DEVICE_KEY", "key", "provision_key", "key"),
    ("THINGSBOARD_PROVISION_DEVICE_SECRET", "secret", "provision_secret", "secret"),
    ("THINGSBOARD_DEVICE_NAME", "roof 7", "device_name", "roof 7"),
    ("TEG_DATA_PATH", FOLDER, "data_path", Path(FOLDER)),
    ("TEG_DATA_PATH", "/does/not/exist/yet", "data_path", Path("/does/not/exist/yet")),
    ("TEG_CONTROLLER_DATA_PATH", FOLDER, "controller_data_path", Path(FOLDER)),
    ("TEG_CONTROLLER_LOGS_PATH", FOLDER, "controller_logs_path", Path(FOLDER)),
    ("TEG_CONTROLLER_GIT_PATH", "/srv/controller/.git", "controller_git_path", Path("/srv/controller/.git")),
    ("TEG_CONTROLLER_GIT_PATH", "UNKNOWN", "controller_git_path", None),
    ("TEG_CONTROLLER_GIT_PATH", "/srv/c/.git", "controller_docker_context", Path("/srv/c/docker")),
    ("TEG_CONTROLLER_DOCKERCONTEXT_PATH", "/srv/context", "controller_docker_context", Path("/srv/context")),
    ("TEG_CONTROLLER_DOCKERFILE_PATH", "pi/Dockerfile", "controller_dockerfile", "pi/Dockerfile"),
    ("TEG_DEFAULT_CONTROLLER_VERSION", "1.2.3", "default_controller_version", "1.2.3"),
    ("LOG_LEVEL", "debug", "log_level", "DEBUG"),
    ("LOG_LEVEL", "WARN", "log_level", "WARNING"),
    ("LOG_LEVEL", "exception", "log_level", "ERROR"),
    ("LOG_LEVEL", "CRITICAL", "log_level", "ERROR"),
    ("LOG_LEVEL", "LOUD", "log_level", "INFO"),
    ("LOG_FORMAT", "JSON", "log_format", "json"),
    ("TEG_QUEUE_URL", "sqlite:///var/lib/q.db", "queue_url", "sqlite:///var/lib/q.db"),
    ("TEG_QUEUE_URL", "redis://:pw@h:6379/1", "queue_url", "redis://:pw@h:6379/1"),
    ("TEG_QUEUE_URL", "rediss://h", "queue_url", "rediss://h"),
    ("TEG_QUEUE_URL", "unix:///run/redis.sock", "queue_url", "unix:///run/redis.sock"),
    ("TEG_QUEUE_URL", "postgresql://u:p@h/db", "queue_url", "postgresql://u:p@h/db"),
    ("TEG_QUEUE_URL", "postgres://h/db", "queue_url", "postgres://h/db"),
    ("TEG_RPC_RUN_COMMAND", "ON", "rpc_run_command", "on"),
    ("TEG_RPC_RUN_COMMAND", HERE, "rpc_run_command", HERE),
    ("TEG_RPC_DISABLED", "reboot, shutdown,,", "rpc_disabled", frozenset({"reboot", "shutdown"})),
    ("TEG_FILE_ROOTS", "/srv/a:/srv/b", "file_roots", (Path("/srv/a"), Path("/srv/b"))),
    ("TEG_CONTROLLER_RUNTIME", "None", "controller_runtime", "none"),
    ("DOCKER_HOST", "tcp://127.0.0.1:2375", "docker_host", "tcp://127.0.0.1:2375"),
    ("TEG_CONTROLLER_PRIVILEGED", "on", "controller_privileged", True),
    ("TEG_CONTROLLER_COMMAND", "python main.py", "controller_command", "python main.py"),
    ("TEG_CONTROLLER_NETWORK", "host", "controller_network", "host"),
    (
        "TEG_CONTROLLER_DEVICES",
        "/dev/ttyUSB0, /dev/a:/dev/b:rw",
        "controller_devices",
        ("/dev/ttyUSB0", "/dev/a:/dev/b:rw"),
    ),
    ("TEG_CONTROLLER_MOUNTS", "/srv/maps:/maps:ro", "controller_mounts", ("/srv/maps:/maps:ro",)),
    ("TEG_CONTROLLER_ENVIRONMENT", "SITE=roof,EMPTY=", "controller_environment", ("SITE=roof", "EMPTY=")),
    ("TEG_CONTROLLER_MEMORY_BYTES", str(GIB), "controller_memory_bytes", GIB),
    ("TEG_CONTROLLER_PIDS", "64", "controller_pids", 64),
    ("TEG_CONTROLLER_CAPABILITIES", "NET_RAW, SYS_NICE", "controller_capabilities", ("NET_RAW", "SYS_NICE")),
    ("TEG_CONTROLLER_CPU_PERCENT", "150", "controller_cpu_percent", 150),
    ("TEG_CONTROLLER_WRITE_BYTES_PER_S", "0", "controller_write_bytes_per_s", 0),
    ("TEG_CONTROLLER_READ_ONLY", "on", "controller_read_only", True),
    ("TEG_CONTROLLER_USER", "1000:50", "controller_user", "1000:50"),
    ("TEG_CONTROLLER_INIT", "off", "controller_init", False),
    ("TEG_CONTROLLER_PIDS", "256", "controller_fixed", frozenset({"pids"})),
    ("TEG_CONTROLLER_DEVICES", "none", "controller_devices", ()),
    ("TEG_CONTROLLER_DEVICES", "none", "controller_fixed", frozenset({"devices"})),
    ("TEG_HEALTH_LIMIT_S", "600", "health_limit_s", 600),
    ("TEG_START_GRACE_S", "0", "start_grace_s", 0),
    ("TEG_OTA_TRIAL_S", "30", "ota_trial_s", 30),
    ("TEG_OTA_REQUIRE_KEYS", "yes", "ota_require_keys", True),
    ("TEG_OTA_REQUIRE_SIGNATURE", "true", "ota_require_signature", True),
    ("TEG_OTA_ALLOWED_SIGNERS", HERE, "ota_allowed_signers", Path(HERE)),
    ("TEG_OTA_REGISTRIES", "ghcr.io/a/b/,docker.io:5000", "ota_registries", ("ghcr.io/a/b/", "docker.io:5000")),
    ("TEG_OTA_REQUIRE_DIGEST", "on", "ota_require_digest", True),
    ("TEG_OTA_BUILD_NETWORK", "off", "ota_build_network", False),
    ("TEG_OTA_BUILD_MEMORY_BYTES", "268435456", "ota_build_memory_bytes", 268435456),
    ("TEG_ARCHIVE_MAX_BYTES", str(GIB), "archive_max_bytes", GIB),
    ("TEG_ARCHIVE_MAX_DAYS", "30", "archive_max_days", 30),
    ("TEG_ARCHIVE_MAX_DAYS", "", "archive_max_days", None),
    ("TEG_LINK_MB_PER_MONTH", "50", "link_mb_per_month", 50),
    ("TEG_LINK_MB_PER_MONTH", "", "link_mb_per_month", None),
    ("TEG_LINK_BATCH_S", "60", "link_batch_s", 60),
    ("TEG_AUXILIARY_S", "3600", "auxiliary_s", 3600),
    ("TB_KEEPALIVE_S", "300", "keepalive_s", 300),
    ("TB_SHORT_TOPIC", "on", "short_topic", True),
    ("TEG_FLASH_MB_PER_DAY", "20", "flash_mb_per_day", 20),
    ("TEG_REPORT", " pm*: mean every 60s ", "report", "pm*: mean every 60s"),
    ("TEG_TELEMETRY_SCALE", "", "telemetry_scale", {}),
    ("TEG_TELEMETRY_SCALE", " a:2 , b:-0.5 ,", "telemetry_scale", {"a": 2.0, "b": -0.5}),
    ("TEG_TELEMETRY_SCALE", "with:colon:1e3", "telemetry_scale", {"with:colon": 1000.0}),
    ("TEG_CONSOLE", "127.0.0.1:8765", "console", "127.0.0.1:8765"),
    ("TEG_CONSOLE", "[::1]:8765", "console", "[::1]:8765"),
    ("TEG_CONSOLE", "localhost:8765", "console", "localhost:8765"),
    ("TEG_CONSOLE_PASSWORD", "a long password", "console_password", "a long password"),
    ("TEG_CONSOLE_PASSWORD", "", "console_password", None),
    ("TEG_CONSOLE_NAMES", "teg.Example.org, roof", "console_names", frozenset({"teg.example.org", "roof"})),
]


LONG = "/" + "a" * 5000


NOBODY = "~no-such-user-here/x"


BAD: list[tuple[str, str]] = [
    ("TB_HOST", ""),
    ("TB_HOST", "mqtts://things.example.org"),
    ("TB_HOST", "two words"),
    ("TB_PORT", ""),
    ("TB_PORT", "0"),
    ("TB_PORT", "65536"),
    ("TB_PORT", "-1"),
    ("TB_PORT", "8883.0"),
    ("TB_PORT", "٣"),
    ("TB_TLS", "maybe"),
    ("TB_CLIENT_CERT", HERE),
    ("TB_CLIENT_CERT", "/no/such/file"),
    ("TB_CLIENT_KEY", HERE),
    ("TB_MQTT_PASSWORD", "of nobody"),
    ("TB_TRANSPORT", "mqtt"),
    ("TB_WEBSOCKET_PATH", "mqtt"),
    ("TB_WEBSOCKET_PATH", "/mqtt two"),
    ("TB_WEBSOCKET_PATH", "/mqtt\r\nHost: x"),
    ("TB_PROXY", "proxy:3128"),
    ("TB_PROXY", "https://proxy:3128"),
    ("TB_PROXY", "socks5://proxy:1080"),
    ("TB_PROXY", "http://proxy"),
    ("TB_PROXY", "http://proxy:0x50"),
    ("TB_PROXY", "http://proxy:99999"),
    ("TB_PROXY", "http://:3128"),
    ("TB_PROXY", "http://user@proxy:3128"),
    ("TB_PROXY", "http://:password@proxy:3128"),
    ("TB_PROXY", "http://proxy:3128/path"),
    ("TB_MQTT_VERSION", "5"),
    ("TEG_OTA_ALLOWED_SIGNERS", "/no/such/file"),
    ("THINGSBOARD_CA_CERT", "/no/such/file"),
    ("THINGSBOARD_CA_CERT", FOLDER),
    ("THINGSBOARD_CA_CERT", LONG),
    ("THINGSBOARD_ACCESS_TOKEN", LONG),
    ("THINGSBOARD_ACCESS_TOKEN", NOBODY),
    ("TEG_DATA_PATH", HERE),
    ("TEG_DATA_PATH", LONG),
    ("TEG_DATA_PATH", NOBODY),
    ("TEG_CONTROLLER_DATA_PATH", HERE),
    ("TEG_CONTROLLER_LOGS_PATH", HERE),
    ("TEG_CONTROLLER_GIT_PATH", LONG),
    ("TEG_CONTROLLER_DOCKERCONTEXT_PATH", NOBODY),
    ("LOG_FORMAT", "xml"),
    ("TEG_QUEUE_URL", "mysql://h/db"),
    ("TEG_QUEUE_URL", "sqlite://relative.db"),
    ("TEG_QUEUE_URL", "sqlite:///"),
    ("TEG_QUEUE_URL", f"sqlite://{FOLDER}"),
    ("TEG_QUEUE_URL", f"sqlite://{LONG}"),
    ("TEG_QUEUE_URL", "redis://"),
    ("TEG_QUEUE_URL", "huey.db"),
    ("TEG_RPC_RUN_COMMAND", "/no/such/list"),
    ("TEG_RPC_RUN_COMMAND", "yes"),
    ("TEG_RPC_RUN_COMMAND", LONG),
    ("TEG_FILE_ROOTS", "relative"),
    ("TEG_FILE_ROOTS", "/srv:relative"),
    ("TEG_CONTROLLER_RUNTIME", "podman"),
    ("TEG_CONTROLLER_RUNTIME", "process"),
    ("DOCKER_HOST", "ssh://host"),
    ("TEG_CONTROLLER_PRIVILEGED", "very"),
    ("TEG_CONTROLLER_DEVICES", "ttyUSB0"),
    ("TEG_CONTROLLER_MOUNTS", "/srv/maps"),
    ("TEG_CONTROLLER_MOUNTS", "/srv:/root/data"),
    ("TEG_CONTROLLER_ENVIRONMENT", "no equals sign"),
    ("TEG_CONTROLLER_MEMORY_BYTES", "512M"),
    ("TEG_CONTROLLER_PIDS", "1"),
    ("TEG_CONTROLLER_CAPABILITIES", "ALL"),
    ("TEG_CONTROLLER_CAPABILITIES", "CAP_NET_RAW"),
    ("TEG_CONTROLLER_CPU_PERCENT", "0"),
    ("TEG_CONTROLLER_WRITE_BYTES_PER_S", "fast"),
    ("TEG_CONTROLLER_READ_ONLY", "partly"),
    ("TEG_CONTROLLER_USER", "0"),
    ("TEG_CONTROLLER_USER", "pi"),
    ("TEG_CONTROLLER_INIT", "systemd"),
    ("TEG_HEALTH_LIMIT_S", "0"),
    ("TEG_START_GRACE_S", "-1"),
    ("TEG_OTA_TRIAL_S", "2 minutes"),
    ("TEG_OTA_REQUIRE_KEYS", "2"),
    ("TEG_OTA_REQUIRE_SIGNATURE", "oui"),
    ("TEG_OTA_REQUIRE_DIGEST", "oui"),
    ("TEG_OTA_REGISTRIES", "https://ghcr.io"),
    ("TEG_OTA_REGISTRIES", "ghcr.io,user@ghcr.io/x"),
    ("TEG_OTA_REGISTRIES", "ghcr.io/*"),
    ("TEG_OTA_BUILD_NETWORK", "perhaps"),
    ("TEG_OTA_BUILD_MEMORY_BYTES", "1"),
    ("TEG_ARCHIVE_MAX_BYTES", "1000"),
    ("TEG_ARCHIVE_MAX_DAYS", "0"),
    ("TEG_ARCHIVE_MAX_DAYS", "for ever"),
    ("TEG_LINK_MB_PER_MONTH", "0"),
    ("TEG_LINK_MB_PER_MONTH", "1.5"),
    ("TEG_LINK_BATCH_S", "3601"),
    ("TEG_AUXILIARY_S", "19"),
    ("TB_KEEPALIVE_S", "541"),
    ("TB_SHORT_TOPIC", "v2/t"),
    ("TEG_FLASH_MB_PER_DAY", "0"),
    ("TEG_TELEMETRY_SCALE", "a"),
    ("TEG_TELEMETRY_SCALE", "a:"),
    ("TEG_TELEMETRY_SCALE", ":1"),
    ("TEG_TELEMETRY_SCALE", "a:x"),
    ("TEG_TELEMETRY_SCALE", "a:0"),
    ("TEG_TELEMETRY_SCALE", "a:nan"),
    ("TEG_TELEMETRY_SCALE", "a:inf"),
    ("TEG_CONSOLE", "8765"),
    ("TEG_CONSOLE", "localhost"),
    ("TEG_CONSOLE", "localhost:0"),
    ("TEG_CONSOLE", "localhost:65536"),
    ("TEG_CONSOLE", "::1:8765"),
    ("TEG_CONSOLE", "0.0.0.0:8765"),
    ("TEG_CONSOLE", "[::]:8765"),
    ("TEG_CONSOLE", "192.168.1.5:8765"),
    ("TEG_CONSOLE", "roof.example.org:8765"),
    ("TEG_CONSOLE", "127.0.0.1.example.org:8765"),
    ("TEG_CONSOLE_PASSWORD", "too short"),
]


#: Any text will do for these; only a zero byte will not.
FREE_TEXT = {
    *("TB_MQTT_CLIENT_ID", "TB_MQTT_USER"),
    "TEG_REPORT",  # read by the report rules: test_report_rules.py
    "LOG_LEVEL",
    "THINGSBOARD_PROVISION_DEVICE_KEY",
    "THINGSBOARD_PROVISION_DEVICE_SECRET",
    "THINGSBOARD_DEVICE_NAME",
    "TEG_CONTROLLER_DOCKERFILE_PATH",
    "TEG_DEFAULT_CONTROLLER_VERSION",
    "TEG_RPC_DISABLED",
    "TEG_CONTROLLER_COMMAND",
    "TEG_CONTROLLER_NETWORK",
    "TEG_CONSOLE_NAMES",
}


@pytest.mark.parametrize(("name", "text", "field", "value"), GOOD)
def test_a_good_value(name: str, text: str, field: str, value: Any) -> None:
    assert getattr(read(**{name: text}), field) == value


@pytest.mark.parametrize(("name", "text"), BAD, ids=[f"{name}={text[:20]}" for name, text in BAD])
def test_a_bad_value_is_named(name: str, text: str) -> None:
    [problem] = problems(**{name: text})
    assert name in problem


def test_every_variable_is_tried_with_good_and_bad_values() -> None:
    assert {name for name, *_ in GOOD} == variables_read()
    assert {name for name, _ in BAD} | FREE_TEXT == variables_read()


@pytest.mark.parametrize("name", sorted(variables_read()))
def test_a_zero_byte_is_refused_everywhere(name: str) -> None:
    assert any(problem.startswith(name) and "zero byte" in problem for problem in problems(**{name: "/a\0b"}))


def test_all_problems_come_in_one_message() -> None:
    with pytest.raises(InvalidSettings) as raised:
        Settings.from_environment(
            {"TB_TLS": "x", "TEG_RPC_RUN_COMMAND": "x", "TEG_CONSOLE": "x", "TEG_HEALTH_LIMIT_S": "x"}
        )
    for name in ("TB_HOST", "TB_PORT", "TB_TLS", "TEG_RPC_RUN_COMMAND", "TEG_CONSOLE", "TEG_HEALTH_LIMIT_S"):
        assert str(raised.value).count(name) == 1
    assert len(str(raised.value).splitlines()) == 7


def test_an_unknown_level_is_said() -> None:
    [notice] = read(LOG_LEVEL="LOUD").notices
    assert "LOG_LEVEL='LOUD'" in notice
    assert "INFO is used" in notice


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("TB_HOTS", "TB_HOST"),
        ("TEG_DATAPATH", "TEG_DATA_PATH"),
        ("TEG_CONTROLLER_DEVICE", "TEG_CONTROLLER_DEVICES"),
        ("THINGSBOARD_PROVISION_KEY", "THINGSBOARD_PROVISION_DEVICE_KEY"),
        ("TB_XYZZY_QUUX", None),
    ],
)
def test_a_name_that_is_no_setting_is_said_with_the_nearest(name: str, nearest: str | None) -> None:
    [notice] = read(**{name: "hunter2-hunter2"}).notices
    assert name in notice
    assert (f"did you mean {nearest}?" in notice) if nearest else ("did you mean" not in notice)
    assert "hunter2" not in notice, "it may be a secret"


def test_names_that_are_settings_are_not_said() -> None:
    """Nor those that the reference's scripts set and nobody read, nor other programs' names."""
    known = dict.fromkeys(variables_read() - set(REQUIRED), "")
    others = dict.fromkeys(("TEG_GATEWAY_DIR", "TEG_TB_HOST", "PATH", "TBX", "teg_data"), "x")
    assert read(**known, **others).notices == ()


def test_secrets_are_not_repeated_in_a_problem() -> None:
    secret = "hunter2-hunter2"
    said = problems(THINGSBOARD_PROVISION_DEVICE_SECRET=secret, TEG_QUEUE_URL=f"mysql://u:{secret}@h/db")
    assert secret not in str(said)


def test_paths_do_not_change_with_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = read(TEG_DATA_PATH="data", THINGSBOARD_ACCESS_TOKEN="token")
    assert found.data_path == tmp_path / "data"
    assert found.access_token_path == tmp_path / "token"
    assert found.queue_url == f"sqlite://{tmp_path}/data/huey_data/huey.db"
    assert found.inbox_path == tmp_path / "data" / "controller" / "communication_queue.db"
    assert found.controller_logs_path == tmp_path / "data" / "controller-logs"


def test_reading_creates_nothing(tmp_path: Path) -> None:
    read(TEG_DATA_PATH=str(tmp_path / "new"))
    assert list(tmp_path.iterdir()) == []


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        read().tb_host = "other"  # type: ignore[misc]


def test_process_with_a_command_is_fine() -> None:
    assert read(TEG_CONTROLLER_RUNTIME="process", TEG_CONTROLLER_COMMAND="run").controller_runtime == "process"


values = st.text(max_size=60) | st.sampled_from([text for _, text in BAD] + [text for _, text, _, _ in GOOD])


@given(st.dictionaries(st.sampled_from(sorted(variables_read())), values))
def test_only_invalid_settings_escapes(environment: dict[str, str]) -> None:
    try:
        found = Settings.from_environment(environment)
    except InvalidSettings as error:
        assert error.problems
        assert all(problem.split("=")[0].split(":")[0].split(" ")[0] in variables_read() for problem in error.problems)
    else:
        assert 1 <= found.tb_port <= 65_535
        assert found.tb_host
