"""The only reader of the environment: everything that can be configured, checked once, frozen.

`Settings.from_environment()` reads the process environment over an optional file (`env_file`); it raises
`InvalidSettings` with every problem in one message. Meaning and defaults: docs/settings.md, `.env.example`.
"""

import os
import re
import shutil
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from teg import places
from teg.connection_settings import ConnectionSettings as ConnectionSettings
from teg.connection_settings import ConnectionVariables
from teg.connection_settings import ProxyAddress as ProxyAddress
from teg.environment import CAPABILITY, DEVICE, MOUNT, OUR_NAMES, REGISTRY, VARIABLE, unquoted, unread_lines
from teg.environment import InvalidSettings as InvalidSettings
from teg.environment import read_env_file as read_env_file
from teg.places import Places

#: The directory that holds the program: a checkout, or the site-packages it was installed into.
PROGRAM = Path(__file__).resolve().parents[1]

#: The settings of a gateway that was installed as a service.
ENV_FILE = "TEG_ENV_FILE"
INSTALLED_ENV_FILE = Path("/etc/teg/teg.env")

#: Rights that the container of the reference gateway keeps unless they are set: TEG_CONTROLLER_<one of these>.
KEEPABLE = ("privileged", "network", "capabilities", "devices", "mounts", "memory_bytes", "pids")

#: Set by systemd for a service with `StateDirectory=`; of several directories the first.
STATE_DIRECTORY = "STATE_DIRECTORY"


def installed() -> bool:
    """Whether the program stands in a Python's library: a place for code alone, where no data or `.env` belongs."""
    return PROGRAM.name in ("site-packages", "dist-packages") or not (PROGRAM / "pyproject.toml").is_file()


def env_file() -> Path:
    """Where settings stand besides the environment: what `TEG_ENV_FILE` says there, else `/etc/teg/teg.env` when
    installed, else `.env` beside us."""
    if named := os.environ.get(ENV_FILE):
        return Path(named)
    return INSTALLED_ENV_FILE if installed() else PROGRAM / ".env"


def environment_with(**variables: str | None) -> dict[str, str]:
    """The process's environment for a program that we start, with those of `variables` that are given."""
    return {**os.environ, **{name: value for name, value in variables.items() if value is not None}}


def quoted_variables() -> list[str]:
    """Our variables whose value in the process's environment has quotes around it, which nobody took off."""
    values = {name: value.strip() for name, value in os.environ.items() if OUR_NAMES.fullmatch(name)}
    return sorted(name for name, value in values.items() if value[:1] in ("'", '"') and unquoted(value) != value)


def environment_variable(name: str) -> str | None:
    """For the few variables that are no settings, such as those a service manager sets."""
    return os.environ.get(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One field a variable; units are in the names."""

    tb_host: str
    tb_port: int
    tb_tls: bool
    tb_mqtt_version: str
    connection: ConnectionSettings
    ca_cert: Path | None
    access_token_path: Path
    provision_key: str | None
    provision_secret: str | None
    device_name: str
    data_path: Path
    controller_data_path: Path
    controller_logs_path: Path
    shared_before: Path | None  #: held the private files before, as the reference's layout has it; the controller's
    former_files: tuple[tuple[Path, Path], ...]  #: where a private file may still lie, and where it belongs
    controller_git_path: Path | None
    controller_docker_context: Path | None
    controller_dockerfile: str
    default_controller_version: str | None
    log_level: str
    log_format: str
    queue_url: str
    rpc_run_command: str
    rpc_disabled: frozenset[str]
    file_roots: tuple[Path, ...]
    controller_runtime: str
    docker_host: str
    controller_privileged: bool
    controller_command: str | None
    controller_network: str
    controller_devices: tuple[str, ...]
    controller_mounts: tuple[str, ...]
    controller_environment: tuple[str, ...]
    controller_memory_bytes: int
    controller_pids: int
    controller_capabilities: tuple[str, ...]
    controller_cpu_percent: int  #: of one processor
    controller_write_bytes_per_s: int
    controller_read_only: bool
    controller_user: str
    controller_init: bool
    controller_fixed: frozenset[str] = field(compare=False)  #: fields of its profile that were set, not defaults
    health_limit_s: int
    start_grace_s: int
    ota_trial_s: int
    ota_require_keys: bool
    ota_require_signature: bool
    ota_allowed_signers: Path | None
    ota_require_digest: bool
    ota_registries: tuple[str, ...]
    ota_build_network: bool
    ota_build_memory_bytes: int
    archive_max_bytes: int
    archive_max_days: int | None
    telemetry_scale: Mapping[str, float]
    keepalive_s: int
    short_topic: bool
    auxiliary_s: int
    link_batch_s: int
    link_mb_per_month: int | None
    flash_mb_per_day: int | None
    report: str  #: as it was written; `telemetry/report_rules.py` reads it
    console: str
    console_password: str | None
    console_names: frozenset[str]
    notices: tuple[str, ...] = ()  #: what is odd but stops nothing, to be said at the start

    @property
    def inbox_path(self) -> Path:
        return self.controller_data_path / places.INBOX

    @property
    def queue_name_path(self) -> Path:
        return self.data_path / places.QUEUE_NAME

    @property
    def private_paths(self) -> tuple[tuple[str, Path], ...]:
        """What each private file or directory is called, and where it lies: nothing of it may be the controller's."""
        return tuple(_private(self))

    @property
    def legacy_data_path(self) -> Path:
        """Where the reference gateway kept its databases."""
        return self.shared_before or self.data_path

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] | None = None, defaults: Mapping[str, str] | None = None
    ) -> "Settings":
        """Read `environment` (default: the process's over the file that `env_file` names).

        Raises:
            InvalidSettings: naming everything that is wrong or missing.
        """
        if environment is not None:
            return _Reader(environment).settings()
        path = env_file()
        return _Reader({**(defaults or {}), **read_env_file(path), **os.environ}, unread_lines(path)).settings()


class _Reader(ConnectionVariables):
    """Which variables there are, and what their defaults are."""

    def settings(self) -> Settings:
        where = self._places()
        data, controller_data, git = where.data, where.controller_data, self._git_path()
        self._text(ENV_FILE)  # read by `env_file`: a known name
        transport = self._transport()
        tls = self._tls(transport)
        settings = Settings(
            tb_host=self._host("TB_HOST"),
            tb_port=self._port(transport),
            tb_tls=tls,
            tb_mqtt_version=self._choice("TB_MQTT_VERSION", "3.1.1", ("3.1.1", "auto")),
            connection=self._connection(transport, tls),
            ca_cert=self._ca_cert(where),
            access_token_path=self._token_path(where),
            provision_key=self._text("THINGSBOARD_PROVISION_DEVICE_KEY") or None,
            provision_secret=self._text("THINGSBOARD_PROVISION_DEVICE_SECRET") or None,
            device_name=self._text("THINGSBOARD_DEVICE_NAME") or _default_device_name(),
            data_path=data,
            controller_data_path=controller_data,
            controller_logs_path=where.controller_logs,
            shared_before=where.shared_before,
            former_files=self._former_files(where),
            controller_git_path=git,
            controller_docker_context=self._docker_context(git),
            controller_dockerfile=self._text("TEG_CONTROLLER_DOCKERFILE_PATH", "./Dockerfile"),
            default_controller_version=self._text("TEG_DEFAULT_CONTROLLER_VERSION") or None,
            log_level=self._log_level("LOG_LEVEL"),
            log_format=self._choice("LOG_FORMAT", "text", ("text", "json")),
            queue_url=self._queue_url(data),
            rpc_run_command=self._run_command("TEG_RPC_RUN_COMMAND"),
            rpc_disabled=frozenset(self._list("TEG_RPC_DISABLED", ",")),
            file_roots=self._roots(controller_data),
            controller_runtime=self._choice("TEG_CONTROLLER_RUNTIME", "docker", ("docker", "process", "none")),
            docker_host=self._docker_host("DOCKER_HOST"),
            controller_privileged=self._switch("TEG_CONTROLLER_PRIVILEGED", False),
            controller_command=self._controller_command(),
            controller_network=self._text("TEG_CONTROLLER_NETWORK", "bridge"),
            controller_devices=self._entries("TEG_CONTROLLER_DEVICES", DEVICE, "/dev/name[:/dev/other][:rwm]"),
            controller_mounts=self._entries("TEG_CONTROLLER_MOUNTS", MOUNT, "/host/path:/container/path[:ro]"),
            controller_environment=self._entries("TEG_CONTROLLER_ENVIRONMENT", VARIABLE, "NAME=value"),
            controller_memory_bytes=self._number("TEG_CONTROLLER_MEMORY_BYTES", 512 << 20, 4 << 20, 1 << 45),
            controller_pids=self._number("TEG_CONTROLLER_PIDS", 256, 8, 100_000),
            controller_capabilities=self._entries("TEG_CONTROLLER_CAPABILITIES", CAPABILITY, "NET_RAW or SYS_NICE"),
            controller_cpu_percent=self._number("TEG_CONTROLLER_CPU_PERCENT", _most_of_the_cpus(), 1, 100_000),
            controller_write_bytes_per_s=self._number("TEG_CONTROLLER_WRITE_BYTES_PER_S", 16 << 20, 0, 1 << 40),
            controller_read_only=self._switch("TEG_CONTROLLER_READ_ONLY", False),
            controller_user=self._user("TEG_CONTROLLER_USER"),
            controller_init=self._switch("TEG_CONTROLLER_INIT", True),
            controller_fixed=frozenset(name for name in KEEPABLE if self._text(f"TEG_CONTROLLER_{name.upper()}")),
            health_limit_s=self._number("TEG_HEALTH_LIMIT_S", 21_600, 1, 10**9),
            start_grace_s=self._number("TEG_START_GRACE_S", 60, 0, 10**6),
            ota_trial_s=self._number("TEG_OTA_TRIAL_S", 120, 1, 10**6),
            ota_require_keys=self._switch("TEG_OTA_REQUIRE_KEYS", False),
            ota_require_signature=self._switch("TEG_OTA_REQUIRE_SIGNATURE", False),
            ota_allowed_signers=self._existing_file("TEG_OTA_ALLOWED_SIGNERS"),
            ota_require_digest=self._switch("TEG_OTA_REQUIRE_DIGEST", False),
            ota_registries=self._entries("TEG_OTA_REGISTRIES", REGISTRY, "host[:port] or host[:port]/path/"),
            ota_build_network=self._switch("TEG_OTA_BUILD_NETWORK", True),
            ota_build_memory_bytes=self._number("TEG_OTA_BUILD_MEMORY_BYTES", 1 << 30, 64 << 20, 1 << 45),
            archive_max_bytes=self._archive_max_bytes(data),
            telemetry_scale=self._factors("TEG_TELEMETRY_SCALE"),
            report=self._text("TEG_REPORT"),
            keepalive_s=self._number("TB_KEEPALIVE_S", 30, 5, 540),
            short_topic=self._switch("TB_SHORT_TOPIC", False),
            auxiliary_s=self._number("TEG_AUXILIARY_S", 20, 20, 86_400),
            link_batch_s=self._number("TEG_LINK_BATCH_S", 0, 0, 3600),
            link_mb_per_month=self._optional_number("TEG_LINK_MB_PER_MONTH", 1, 10**9),
            flash_mb_per_day=self._optional_number("TEG_FLASH_MB_PER_DAY", 1, 10**6),
            archive_max_days=self._optional_number("TEG_ARCHIVE_MAX_DAYS", 1, 36_500),
            console=self._address("TEG_CONSOLE", "127.0.0.1:8765"),
            console_password=self._password("TEG_CONSOLE_PASSWORD", "TEG_CONSOLE"),
            console_names=frozenset(name.lower() for name in self._list("TEG_CONSOLE_NAMES", ",")),
        )
        self._keep_apart(settings)
        notices = (*self._notices, *self._unknown_names())
        if self._problems:
            raise InvalidSettings(list(self._problems.values()), notices)
        return replace(settings, notices=notices)

    # --- private and shared directories --------------------------------------------------------------------------

    def _places(self) -> Places:
        data = self._directory("TEG_DATA_PATH", self._default_data())
        controller_data = self._directory("TEG_CONTROLLER_DATA_PATH", data)
        logs = self._directory("TEG_CONTROLLER_LOGS_PATH", data)
        return places.arrange(
            data,
            controller_data if self._text("TEG_CONTROLLER_DATA_PATH") else None,
            logs if self._text("TEG_CONTROLLER_LOGS_PATH") else None,
            self._state_directory(),
        )

    def _state_directory(self) -> Path | None:
        first = self._environment.get(STATE_DIRECTORY, "").partition(":")[0]
        return Path(first) if first.startswith("/") else None

    def _default_data(self) -> Path:
        """Never among the program: neither an upgrade of it nor a look at it may meet the data."""
        if state := self._state_directory():
            return state
        if installed():
            return Path("/var/lib/teg")
        default = PROGRAM / "data"
        unset = not self._text("TEG_DATA_PATH")
        if unset and (PROGRAM / "gateway.db").exists() and not (default / "gateway.db").exists():
            self._complain(
                f"TEG_DATA_PATH is not set, and {PROGRAM / 'gateway.db'} is of an earlier version that kept its data "
                f"beside the program: move gateway.db*, tb_access_token and last_launched_controller_version.txt "
                f"into {default} (mode 0700), {places.INBOX}* into {default / 'controller'}"
            )
        return default

    def _token_path(self, where: Places) -> Path:
        return where.belongs(self._path("THINGSBOARD_ACCESS_TOKEN", str(where.data / places.TOKEN)))

    def _former_files(self, where: Places) -> tuple[tuple[Path, Path], ...]:
        named = [self._path(name, "/nowhere") for name in ("THINGSBOARD_ACCESS_TOKEN", "THINGSBOARD_CA_CERT")]
        return tuple(places.former_files(where, self._token_path(where), named, (Path.cwd(), PROGRAM)))

    def _keep_apart(self, settings: Settings) -> None:
        """What the container can write must neither be, hold nor lie in anything of the gateway's own."""
        if "TEG_DATA_PATH" in self._problems:
            return  # nearly every other path follows from it
        shared = [
            ("TEG_CONTROLLER_DATA_PATH", settings.controller_data_path),
            ("TEG_CONTROLLER_LOGS_PATH", settings.controller_logs_path),
            *(("TEG_CONTROLLER_MOUNTS", Path(entry.partition(":")[0])) for entry in settings.controller_mounts),
        ]
        private = [entry for entry in _private(settings) if entry[0].partition(" ")[0] not in self._problems]
        for name, directory, met in places.overlaps(shared, private):
            if name not in self._problems:
                self._problems[f"{name}={directory}"] = (
                    f"{name}={directory} is what the controller sees, but it is, holds or lies in what is the "
                    f"gateway's alone: {', '.join(met)}"
                )
        before, data = settings.shared_before, settings.data_path
        if before and places.is_lost_with_a_container(data) and not places.is_lost_with_a_container(before):
            self._complain(
                f"TEG_DATA_PATH={before} is the controller's directory, too, and the place beside it ({data}) does "
                f"not outlast the container of the gateway: set TEG_DATA_PATH to a volume of its own"
            )

    def _controller_command(self) -> str | None:
        text = self._text("TEG_CONTROLLER_COMMAND")
        if not text and self._text("TEG_CONTROLLER_RUNTIME").lower() == "process":
            self._complain("TEG_CONTROLLER_RUNTIME=process needs TEG_CONTROLLER_COMMAND, the command to run")
        return text or None

    def _git_path(self) -> Path | None:
        if self._text("TEG_CONTROLLER_GIT_PATH") in ("", "UNKNOWN"):
            return None
        return self._path("TEG_CONTROLLER_GIT_PATH", "")

    def _docker_context(self, git: Path | None) -> Path | None:
        if self._text("TEG_CONTROLLER_DOCKERCONTEXT_PATH"):
            return self._path("TEG_CONTROLLER_DOCKERCONTEXT_PATH", "")
        return git.parent / "docker" if git else None

    def _queue_url(self, data: Path) -> str:
        url = self._text("TEG_QUEUE_URL", "sqlite:")
        if url == "sqlite:":
            in_checkout = not (installed() or self._text("TEG_DATA_PATH"))
            return f"sqlite://{(PROGRAM if in_checkout else data) / 'huey_data' / 'huey.db'}"
        if not re.match(r"(sqlite:///|rediss?://|unix:///|postgres(ql)?://).", url):
            self._complain("TEG_QUEUE_URL is none of sqlite:///path, redis://…, postgresql://…")
        elif url.startswith("sqlite:") and self._usable("TEG_QUEUE_URL", url[9:]).is_dir():
            self._complain("TEG_QUEUE_URL names a directory, not the queue file")
        return url

    def _roots(self, controller_data: Path) -> tuple[Path, ...]:
        roots = tuple(Path(part) for part in self._list("TEG_FILE_ROOTS", ":")) or (controller_data,)
        for root in roots:
            if not root.is_absolute():
                self._complain(f"TEG_FILE_ROOTS: {str(root)!r} is not an absolute path")
        return roots

    def _archive_max_bytes(self, data: Path) -> int:
        """Default: a quarter of the partition that holds the data."""
        existing = next(path for path in (data, *data.parents) if path.exists())
        return self._number("TEG_ARCHIVE_MAX_BYTES", shutil.disk_usage(existing).total // 4, 1 << 20, 1 << 50)


def _private(settings: Settings) -> Iterator[tuple[str, Path]]:
    """What each thing is called (by its variable where it has one) and where it lies."""
    yield "THINGSBOARD_ACCESS_TOKEN", settings.access_token_path
    if settings.ca_cert:
        yield "THINGSBOARD_CA_CERT", settings.ca_cert
    yield from ((n, p) for n, p in settings.connection.files if p)
    if settings.ota_allowed_signers:
        yield "TEG_OTA_ALLOWED_SIGNERS", settings.ota_allowed_signers
    if settings.controller_git_path:
        yield "TEG_CONTROLLER_GIT_PATH", settings.controller_git_path
    if settings.queue_url.startswith("sqlite:"):
        yield "TEG_QUEUE_URL", Path(settings.queue_url.removeprefix("sqlite://"))
    if settings.rpc_run_command not in ("on", "off"):
        yield "TEG_RPC_RUN_COMMAND", Path(settings.rpc_run_command)
    if settings.docker_host.startswith("unix://"):
        yield "DOCKER_HOST", Path(settings.docker_host.removeprefix("unix://"))
    yield "the settings", env_file()
    yield from places.own_files(settings.data_path, PROGRAM, installed())


def _most_of_the_cpus() -> int:
    """Three quarters: the gateway and the rest of the machine go on whatever the controller does."""
    return 75 * (os.cpu_count() or 1)


def _default_device_name() -> str:
    return socket.gethostname() or "teg"
