"""Environment variables one at a time: their text, what it means, and what is wrong with it; and files of them."""

import difflib
import ipaddress
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

#: Names of ours begin like this; whoever misspells one is told.
OUR_NAMES = re.compile(r"(TEG|TB|THINGSBOARD)_[A-Z0-9_]+")
#: Set by the reference's scripts and compose files, and never read by it either.
NEVER_READ = {"TEG_GATEWAY_DIR", "TEG_GATEWAY_GIT_PATH", "TEG_CONTROLLER_PROJECT_PATH", "TEG_TB_HOST", "TEG_TB_PORT"}

#: Forms of the lists that describe the controller's container; its two own directories cannot be mounted over.
DEVICE = r"/[^:]+(:/[^:]+)?(:[rwm]{1,3})?"
MOUNT = r"/[^:]*:(?!/root/(data|logs)/?(:|$))/[^:]+(:(ro|rw))?"
REGISTRY = r"[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[a-z0-9._-]+)*/?"
VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*=.*"
CAPABILITY = r"(?!CAP_|ALL\Z)[A-Z][A-Z_]{1,40}"

SHORTEST_PASSWORD = 10
#: Levels, and the other names for them that the reference and Python's logging take.
LOG_LEVELS = {
    **{name: name for name in ("DEBUG", "INFO", "WARNING", "ERROR")},
    "WARN": "WARNING",
    "EXCEPTION": "ERROR",
    "CRITICAL": "ERROR",
    "FATAL": "ERROR",
    "NOTSET": "DEBUG",
}


class InvalidSettings(Exception):  # noqa: N818
    """The environment cannot be used; the message lists every problem, one a line, then what may be the reason.

    A misspelled name is both: the setting that is missing, and a name that is no setting.
    """

    def __init__(self, problems: list[str], notices: Sequence[str] = ()) -> None:
        self.problems, self.notices = problems, tuple(notices)
        lines = "\n".join(f"  - {line}" for line in (*problems, *notices))
        super().__init__("The gateway cannot start with these settings:\n" + lines)


def read_env_file(path: Path) -> dict[str, str]:
    """`NAME=value` lines; `#` comments, an optional `export` and matching quotes are allowed. Missing file: empty.

    Raises:
        InvalidSettings: the file cannot be read.
    """
    return {name: value for name, value in map(_name_and_value, _lines(path)) if name is not None}


def unread_lines(path: Path) -> list[str]:
    """One sentence for every line of the file that is neither a setting nor a comment; never the line, it may be a
    secret.
    """
    return [
        f"line {number} of {path} is not read: it is not of the form NAME=value"
        for number, line in enumerate(_lines(path), start=1)
        if line.strip() and not line.strip().startswith("#") and _name_and_value(line)[0] is None
    ]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSettings([f"{path} cannot be read: {error}"]) from error


def _name_and_value(line: str) -> tuple[str | None, str]:
    name, separator, value = line.strip().removeprefix("export ").partition("=")
    if separator and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name.strip()):
        return name.strip(), unquoted(value.strip())
    return None, ""


def unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    return value.split(" #", 1)[0].rstrip()


def is_loopback(address: str) -> bool:
    """Whether `host:port` can be reached from this machine only; a name other than localhost may mean any address."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Variables:
    """Collects problems instead of stopping at the first."""

    def __init__(self, environment: Mapping[str, str], notices: Sequence[str] = ()) -> None:
        self._environment = environment
        self._problems: dict[str, str] = {}  #: variable → the first thing wrong with it
        self._asked: set[str] = set()
        self._notices = list(notices)

    def _factors(self, name: str) -> Mapping[str, float]:
        """`key:factor,key:factor`; a key may hold colons."""
        factors: dict[str, float] = {}
        for entry in self._list(name, ","):
            key, _, factor = entry.rpartition(":")
            try:
                factors[key.strip()] = float(factor)
            except ValueError:
                factors[key.strip()] = math.nan
            if not key.strip() or not math.isfinite(factors[key.strip()]) or not factors[key.strip()]:
                self._complain(f"{name}: {entry!r} is not of the form key:factor, with a finite factor other than 0")
        return factors

    def _complain(self, problem: str) -> None:
        """`problem` begins with the variable's name; only its first one is kept, the others follow from it."""
        self._problems.setdefault(re.split(r"[^A-Z0-9_]", problem, maxsplit=1)[0], problem)

    def _unknown_names(self) -> list[str]:
        """One line for every name that looks like a setting and is none; never the value, it may be a secret."""
        known = self._asked | NEVER_READ
        found = []
        for name in sorted(self._environment):
            if name in known or not (OUR_NAMES.fullmatch(name) or name.upper() in self._asked):
                continue
            near = difflib.get_close_matches(name.upper(), sorted(self._asked), n=1)
            found.append(f"{name} is not a setting of this gateway" + (f"; did you mean {near[0]}?" if near else ""))
        return found

    def _log_level(self, name: str) -> str:
        """What the reference took is taken: an unknown level is said and means INFO."""
        text = self._text(name, "INFO")
        level = LOG_LEVELS.get(text.upper())
        if level is None:
            self._notices.append(f"{name}={text[:40]!r} is none of {', '.join(LOG_LEVELS)}; INFO is used")
        return level or "INFO"

    def _text(self, name: str, default: str = "") -> str:
        self._asked.add(name)
        text = self._environment.get(name, "").strip()
        if "\0" in text:
            self._complain(f"{name} holds a zero byte")
            return default
        return text or default

    def _host(self, name: str) -> str:
        value = self._text(name)
        if not value:
            self._complain(f"{name} is not set")
        elif "://" in value:
            scheme = value.partition("://")[0]
            self._complain(
                f"{name}={value!r} is not a host name or address: without '{scheme}://' and what follows the name"
            )
        elif re.fullmatch(r"[^:\[\]]+:\d+|\[.*\]:\d+", value):
            self._complain(f"{name}={value!r} is not a host name or address: the port belongs into TB_PORT")
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
        """A comma-separated list whose every entry has the form of `example`; `none` says that it is empty."""
        entries = () if self._text(name) == "none" else self._list(name, ",")
        for entry in entries:
            if not re.fullmatch(pattern, entry, re.DOTALL):
                self._complain(f"{name}: {entry!r} is not {example}")
        return entries

    def _address(self, name: str, example: str) -> str:
        """`host:port` to listen on, `[address]:port` for IPv6; empty when not set."""
        text = self._text(name)
        host, _, port = text.rpartition(":")
        good_port = re.fullmatch(r"[0-9]{1,5}", port) and 1 <= int(port) <= 65_535
        if text and not (good_port and re.fullmatch(r"\[[0-9a-fA-F:.]+\]|[^\s:/]+", host)):
            self._complain(f"{name}={text!r} is not host:port, e.g. {example}")
        return text

    def _password(self, name: str, address_name: str) -> str | None:
        """Of what listens on `address_name`: whoever reaches another address than loopback may be anybody."""
        password, address = self._text(name), self._text(address_name)
        if password and len(password) < SHORTEST_PASSWORD:
            self._complain(f"{name} has less than {SHORTEST_PASSWORD} characters")
        if address and not password and not is_loopback(address):
            self._complain(f"{address_name}={address!r} is not of this machine alone, so {name} must be set")
        return password or None

    def _path(self, name: str, default: str) -> Path:
        """Absolute, with `~` resolved; what no file system takes is a problem."""
        return self._usable(name, self._text(name, default))

    def _usable(self, name: str, text: str) -> Path:
        try:
            path = Path(text).expanduser().absolute()
            path.exists()
        except (OSError, RuntimeError) as error:
            self._complain(f"{name}={text[:200]!r} is not a usable path: {error}")
            return Path("/nowhere")
        return path

    def _existing_file(self, name: str) -> Path | None:
        """An empty variable means 'not set': compose files pass those."""
        if not self._text(name):
            return None
        path = self._path(name, "")
        if not path.is_file():
            self._complain(f"{name}={path} does not exist or is not a file")
        return path

    def _directory(self, name: str, default: Path) -> Path:
        path = self._path(name, str(default))
        if self._text(name) and path.exists() and not path.is_dir():
            self._complain(f"{name}={path} is not a directory")
        return path

    # --- texts with a form of their own

    def _user(self, name: str) -> str:
        text = self._text(name)
        if text and not re.fullmatch(r"[1-9][0-9]{0,8}(:[0-9]{1,9})?", text):
            self._complain(f"{name}={text!r} is not the number of a user, or user:group, e.g. 1000:1000")
        return text

    def _docker_host(self, name: str) -> str:
        text = self._text(name, "unix:///var/run/docker.sock")
        if not re.fullmatch(r"(unix:///|tcp://|http://).+", text):
            self._complain(f"{name}={text!r} is not unix:///path or tcp://host:port")
        return text

    def _run_command(self, name: str) -> str:
        """'on', 'off', or the path of an allow-list file."""
        text = self._text(name, "off")
        if text.lower() in ("on", "off"):
            return text.lower()
        path = self._path(name, "")
        if not path.is_file():
            self._complain(f"{name}={text!r} is neither 'on', 'off' nor an existing allow-list file")
        return str(path)
