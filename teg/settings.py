"""The only reader of the environment: everything that can be configured, checked once, frozen.

`Settings.from_environment()` reads the process environment, in a checkout over an optional `.env` beside the program;
it raises `InvalidSettings` with every problem in one message. Meaning and defaults: docs/settings.md, `.env.example`.
"""

import os
import re
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

#: The directory that holds the program: a checkout, or the site-packages it was installed into.
PROGRAM = Path(__file__).resolve().parents[1]

#: Forms of the lists that describe the controller's container; its two own directories cannot be mounted over.
DEVICE = r"/[^:]+(:/[^:]+)?(:[rwm]{1,3})?"
MOUNT = r"/[^:]*:(?!/root/(data|logs)/?(:|$))/[^:]+(:(ro|rw))?"
VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*=.*"


class InvalidSettings(Exception):  # noqa: N818
    """The environment cannot be used; the message lists every problem, one a line."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("The gateway cannot start with these settings:\n" + "\n".join(f"  - {p}" for p in problems))


def installed() -> bool:
    """Whether the program stands in a Python's library: a place for code alone, where no data or `.env` belongs."""
    return PROGRAM.name in ("site-packages", "dist-packages") or not (PROGRAM / "pyproject.toml").is_file()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One field a variable; units are in the names."""

    tb_host: str
    tb_port: int
    tb_tls: bool
    ca_cert: Path | None
    access_token_path: Path
    provision_key: str | None
    provision_secret: str | None
    device_name: str
    data_path: Path
    controller_data_path: Path
    controller_logs_path: Path
    controller_git_path: Path | None
    controller_docker_context: Path | None
    controller_dockerfile: str
    default_controller_version: str | None
    log_level: str
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
    health_limit_s: int
    start_grace_s: int
    ota_trial_s: int
    ota_require_keys: bool
    ota_require_signature: bool
    ota_registries: tuple[str, ...]
    archive_max_bytes: int
    archive_max_days: int | None
    console: str

    @property
    def inbox_path(self) -> Path:
        return self.controller_data_path / "communication_queue.db"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Settings":
        """Read `environment` (default: the process's, in a checkout over `.env`).

        Raises:
            InvalidSettings: naming everything that is wrong or missing.
        """
        if environment is None:
            beside = {} if installed() else read_env_file(PROGRAM / ".env")
            environment = {**beside, **os.environ}
        return _Reader(environment).settings()


def read_env_file(path: Path) -> dict[str, str]:
    """`NAME=value` lines; `#` comments, an optional `export` and matching quotes are allowed. Missing file: empty."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSettings([f"{path} cannot be read: {error}"]) from error
    found: dict[str, str] = {}
    for line in lines:
        name, separator, value = line.strip().removeprefix("export ").partition("=")
        if separator and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name.strip()):
            found[name.strip()] = _unquoted(value.strip())
    return found


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    return value.split(" #", 1)[0].rstrip()


class _Reader:
    """Collects problems instead of stopping at the first."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._problems: dict[str, str] = {}  #: variable → the first thing wrong with it

    def settings(self) -> Settings:
        data = self._directory("TEG_DATA_PATH", Path("/var/lib/teg") if installed() else PROGRAM)
        controller_data = self._directory("TEG_CONTROLLER_DATA_PATH", data)
        git = self._git_path()
        settings = Settings(
            tb_host=self._required("TB_HOST"),
            tb_port=self._number("TB_PORT", None, 1, 65_535),
            tb_tls=self._switch("TB_TLS", True),
            ca_cert=self._file("THINGSBOARD_CA_CERT"),
            access_token_path=self._path("THINGSBOARD_ACCESS_TOKEN", "./tb_access_token"),
            provision_key=self._text("THINGSBOARD_PROVISION_DEVICE_KEY") or None,
            provision_secret=self._text("THINGSBOARD_PROVISION_DEVICE_SECRET") or None,
            device_name=self._text("THINGSBOARD_DEVICE_NAME") or _default_device_name(),
            data_path=data,
            controller_data_path=controller_data,
            controller_logs_path=self._directory("TEG_CONTROLLER_LOGS_PATH", controller_data / "logs"),
            controller_git_path=git,
            controller_docker_context=self._docker_context(git),
            controller_dockerfile=self._text("TEG_CONTROLLER_DOCKERFILE_PATH", "./Dockerfile"),
            default_controller_version=self._text("TEG_DEFAULT_CONTROLLER_VERSION") or None,
            log_level=self._choice("LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR")),
            queue_url=self._queue_url(data),
            rpc_run_command=self._run_command(),
            rpc_disabled=frozenset(self._list("TEG_RPC_DISABLED", ",")),
            file_roots=self._roots(controller_data),
            controller_runtime=self._choice("TEG_CONTROLLER_RUNTIME", "docker", ("docker", "process", "none")),
            docker_host=self._docker_host(),
            controller_privileged=self._switch("TEG_CONTROLLER_PRIVILEGED", False),
            controller_command=self._controller_command(),
            controller_network=self._text("TEG_CONTROLLER_NETWORK", "bridge"),
            controller_devices=self._entries("TEG_CONTROLLER_DEVICES", DEVICE, "/dev/name[:/dev/other][:rwm]"),
            controller_mounts=self._entries("TEG_CONTROLLER_MOUNTS", MOUNT, "/host/path:/container/path[:ro]"),
            controller_environment=self._entries("TEG_CONTROLLER_ENVIRONMENT", VARIABLE, "NAME=value"),
            controller_memory_bytes=self._number("TEG_CONTROLLER_MEMORY_BYTES", 512 << 20, 4 << 20, 1 << 45),
            controller_pids=self._number("TEG_CONTROLLER_PIDS", 256, 8, 100_000),
            health_limit_s=self._number("TEG_HEALTH_LIMIT_S", 21_600, 1, 10**9),
            start_grace_s=self._number("TEG_START_GRACE_S", 60, 0, 10**6),
            ota_trial_s=self._number("TEG_OTA_TRIAL_S", 120, 1, 10**6),
            ota_require_keys=self._switch("TEG_OTA_REQUIRE_KEYS", False),
            ota_require_signature=self._switch("TEG_OTA_REQUIRE_SIGNATURE", False),
            ota_registries=self._list("TEG_OTA_REGISTRIES", ","),
            archive_max_bytes=self._archive_max_bytes(data),
            archive_max_days=self._optional_number("TEG_ARCHIVE_MAX_DAYS", 1, 36_500),
            console=self._console(),
        )
        if self._problems:
            raise InvalidSettings(list(self._problems.values()))
        return settings

    def _complain(self, problem: str) -> None:
        """`problem` begins with the variable's name; only its first one is kept, the others follow from it."""
        self._problems.setdefault(re.split(r"[^A-Z0-9_]", problem, maxsplit=1)[0], problem)

    def _text(self, name: str, default: str = "") -> str:
        text = self._environment.get(name, "").strip()
        if "\0" in text:
            self._complain(f"{name}={text[:80]!r} holds a zero byte")
            return default
        return text or default

    def _required(self, name: str) -> str:
        value = self._text(name)
        if not value:
            self._complain(f"{name} is not set")
        elif re.search(r"[\s/]", value):
            self._complain(f"{name}={value!r} is not a host name or address")
        return value

    def _number(self, name: str, default: int | None, low: int, high: int) -> int:
        text = self._text(name)
        if not text:
            if default is None:
                self._complain(f"{name} is not set")
            return default or 0
        if not re.fullmatch(r"[0-9]{1,15}", text) or not low <= int(text) <= high:
            self._complain(f"{name}={text!r} is not a whole number from {low} to {high}")
            return default or 0
        return int(text)

    def _optional_number(self, name: str, low: int, high: int) -> int | None:
        return self._number(name, low, low, high) if self._text(name) else None

    def _switch(self, name: str, default: bool) -> bool:
        text = self._text(name, "on" if default else "off").lower()
        if text not in ("on", "off", "true", "false", "1", "0", "yes", "no"):
            self._complain(f"{name}={text!r} is neither 'on' nor 'off'")
        return text in ("on", "true", "1", "yes")

    def _choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        text = self._text(name, default)
        for choice in choices:
            if text.lower() == choice.lower():
                return choice
        self._complain(f"{name}={text!r} is not one of {', '.join(choices)}")
        return default

    def _list(self, name: str, separator: str) -> tuple[str, ...]:
        return tuple(part.strip() for part in self._text(name).split(separator) if part.strip())

    def _entries(self, name: str, pattern: str, example: str) -> tuple[str, ...]:
        """A comma-separated list whose every entry has the form of `example`."""
        entries = self._list(name, ",")
        for entry in entries:
            if not re.fullmatch(pattern, entry, re.DOTALL):
                self._complain(f"{name}: {entry!r} is not {example}")
        return entries

    def _controller_command(self) -> str | None:
        text = self._text("TEG_CONTROLLER_COMMAND")
        if not text and self._text("TEG_CONTROLLER_RUNTIME").lower() == "process":
            self._complain("TEG_CONTROLLER_RUNTIME=process needs TEG_CONTROLLER_COMMAND, the command to run")
        return text or None

    def _docker_host(self) -> str:
        text = self._text("DOCKER_HOST", "unix:///var/run/docker.sock")
        if not re.fullmatch(r"(unix:///|tcp://|http://).+", text):
            self._complain(f"DOCKER_HOST={text!r} is not unix:///path or tcp://host:port")
        return text

    def _path(self, name: str, default: str) -> Path:
        """Absolute, with `~` resolved; what no file system takes is a problem."""
        return self._usable(name, self._text(name, default))

    def _usable(self, name: str, text: str) -> Path:
        try:
            path = Path(text).expanduser().absolute()
            path.exists()
        except (OSError, RuntimeError) as error:
            self._complain(f"{name}={text[:200]!r} is not a usable path: {error}")
            return PROGRAM
        return path

    def _directory(self, name: str, default: Path) -> Path:
        path = self._path(name, str(default))
        if self._text(name) and path.exists() and not path.is_dir():
            self._complain(f"{name}={path} is not a directory")
        return path

    def _file(self, name: str) -> Path | None:
        """An empty variable means 'not set': compose files pass those."""
        if not self._text(name):
            return None
        path = self._path(name, "")
        if not path.is_file():
            self._complain(f"{name}={path} does not exist or is not a file")
        return path

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
            return f"sqlite://{data / 'huey_data' / 'huey.db'}"
        if not re.match(r"(sqlite:///|rediss?://|unix:///|postgres(ql)?://).", url):
            self._complain("TEG_QUEUE_URL is none of sqlite:///path, redis://…, postgresql://…")
        elif url.startswith("sqlite:") and self._usable("TEG_QUEUE_URL", url[9:]).is_dir():
            self._complain("TEG_QUEUE_URL names a directory, not the queue file")
        return url

    def _run_command(self) -> str:
        """'on', 'off', or the path of an allow-list file."""
        text = self._text("TEG_RPC_RUN_COMMAND", "off")
        if text.lower() in ("on", "off"):
            return text.lower()
        path = self._path("TEG_RPC_RUN_COMMAND", "")
        if not path.is_file():
            self._complain(f"TEG_RPC_RUN_COMMAND={text!r} is neither 'on', 'off' nor an existing allow-list file")
        return str(path)

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

    def _console(self) -> str:
        text = self._text("TEG_CONSOLE")
        host, _, port = text.rpartition(":")
        good_port = re.fullmatch(r"[0-9]{1,5}", port) and 1 <= int(port) <= 65_535
        if text and not (good_port and re.fullmatch(r"\[[0-9a-fA-F:.]+\]|[^\s:/]+", host)):
            self._complain(f"TEG_CONSOLE={text!r} is not host:port, e.g. 127.0.0.1:8765")
        return text


def _default_device_name() -> str:
    return socket.gethostname() or "teg"
