"""The controller's side: what runs it, its image, its repository, its inbox, its sign of life."""

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from teg.adapters.docker_engine.client import Engine, NotThere
from teg.adapters.gateway_db.database import Database
from teg.adapters.gateway_db.state import StateTable
from teg.adapters.git_repository import GitRepository
from teg.adapters.host import condition
from teg.adapters.inbox.mailbox import Inbox
from teg.adapters.inbox.reader import confinement
from teg.adapters.inbox.wire import BrokenFrame
from teg.console.checks.finding import Finding, Site, aged, fine, problem, skipped, warning
from teg.console.health import CONTROLLER_REMEDY, QUIET_CONTROLLER_S
from teg.console.wording import age, harmless
from teg.domain.errors import Refused, Unavailable
from teg.domain.supervision.runtime import CONTAINER_NAME, image_name
from teg.domain.supervision.version import ControllerVersion
from teg.settings import Settings

REMOTE_DEADLINE_S = 15.0
#: Bytes 18 and 19 of a SQLite file: 2 means write-ahead log (sqlite.org/fileformat.html 1.3.3).
WAL_BYTES = b"\x02\x02"


def check_docker(site: Site) -> Iterator[Finding]:
    """The engine, what starts its containers, the image, the container: four lines."""
    if site.settings.controller_runtime != "docker":
        runtime = site.settings.controller_runtime
        yield from (skipped(subject, f"not used (TEG_CONTROLLER_RUNTIME={runtime})") for subject in DOCKER_SUBJECTS)
        return
    engine = Engine(site.settings.docker_host)
    try:
        versions = engine.call(lambda client: client.version())
    except (Unavailable, Refused) as reason:
        remedy = "systemctl start docker, and put the gateway's user into the group docker"
        yield problem("docker", harmless(str(reason)), remedy)
        yield from (skipped(subject, "not tried: no Docker") for subject in DOCKER_SUBJECTS[1:])
        return
    yield aged("docker", "docker", str(versions.get("Version")), f"{{}} at {site.settings.docker_host}")
    yield _runc(versions)
    yield from _image(site.settings, engine)
    yield from _container(site, engine)


DOCKER_SUBJECTS = ("docker", "container runtime", "controller image", "controller")


def _runc(versions: dict[str, Any]) -> Finding:
    parts = {part.get("Name"): part.get("Version") for part in versions.get("Components", [])}
    return aged("container runtime", "runc", str(parts.get("runc", "of an unknown version")), "runc {}")


def _image(settings: Settings, engine: Engine) -> Iterator[Finding]:
    version = wanted_version(settings)
    if version is None:
        remedy = "assign a software version to the device, or set TEG_DEFAULT_CONTROLLER_VERSION"
        yield warning("controller image", "no version is known yet", remedy)
        return
    try:
        engine.call(lambda client: client.inspect_image(image_name(version)))
    except NotThere:
        remedy = "assign the version on the server again, or load its image (docker load)"
        yield problem("controller image", f"the image of version {harmless(version)} is not on this device", remedy)
    except (Unavailable, Refused) as reason:
        yield problem("controller image", harmless(str(reason)), "see 'docker images'")
    else:
        yield fine("controller image", image_name(version))


def wanted_version(settings: Settings) -> str | None:
    """As the gateway would decide; the database is only read."""
    database = Database(settings.data_path / "gateway.db", read_only=True)
    state = StateTable(database) if database.path.exists() else _NoState()
    legacy = settings.data_path / "last_launched_controller_version.txt"
    try:
        return ControllerVersion(state, legacy, settings.default_controller_version).committed()
    except Unavailable:
        return settings.default_controller_version
    finally:
        database.close()


class _NoState:
    def get(self, key: str) -> Any:
        return None

    def put(self, key: str, value: Any) -> None:
        raise Refused("there is no state")

    def delete(self, key: str) -> None:
        raise Refused("there is no state")

    def keys(self, prefix: str) -> list[str]:
        return []


def _container(site: Site, engine: Engine) -> Iterator[Finding]:
    told = (site.gateway or {}).get("controller", {})
    state = told.get("controller_state")
    if state in CONTROLLER_REMEDY:
        reason = harmless(str(told.get("controller_state_reason", "")))
        yield problem("controller", f"{state}: {reason}", CONTROLLER_REMEDY[state])
        return
    try:
        found = engine.call(lambda client: client.inspect_container(CONTAINER_NAME))
    except NotThere:
        yield warning("controller", "there is no container 'teg_controller'", "it is made when the gateway runs")
    except (Unavailable, Refused) as reason:
        yield problem("controller", harmless(str(reason)), "see 'docker ps -a'")
    else:
        yield _rights(found)


def _rights(found: dict[str, Any]) -> Finding:
    running = found["State"].get("Status", "unknown")
    if running != "running":
        code = found["State"].get("ExitCode")
        return warning("controller", f"the container is {running} (exit code {code})", "docker logs teg_controller")
    if found["HostConfig"].get("Privileged"):
        return warning("controller", "running, with all rights of this machine", "TEG_CONTROLLER_PRIVILEGED=off")
    return fine("controller", "running, without privileges")


def check_git(site: Site) -> Iterator[Finding]:
    if site.settings.controller_git_path is None:
        yield skipped("git", "not needed (TEG_CONTROLLER_GIT_PATH)")
        return
    yield _program("git", ("git", "--version"), "install git")


def check_ssh(site: Site) -> Iterator[Finding]:
    """Signatures are checked by ssh-keygen, which has no version of its own: it comes with ssh."""
    if not site.settings.ota_require_signature:
        yield skipped("ssh", "not needed (TEG_OTA_REQUIRE_SIGNATURE)")
        return
    yield _program("ssh", ("ssh", "-V"), "install openssh-client")


def _program(name: str, command: tuple[str, ...], remedy: str) -> Finding:
    said = condition.program_version(*command)
    if said is None:
        return problem(name, "is not installed", remedy)
    return aged(name, name, said, "{}")


def check_repository(site: Site) -> Iterator[Finding]:
    settings = site.settings
    if settings.controller_git_path is None:
        yield skipped("controller repository", "none (TEG_CONTROLLER_GIT_PATH)")
        return
    path = settings.controller_git_path
    if not path.exists():
        remedy = "git clone it there, or correct TEG_CONTROLLER_GIT_PATH"
        yield problem("controller repository", f"{path} does not exist", remedy)
        return
    repository = GitRepository(path, None, "", settings.data_path / "check", proxy_url=settings.connection.proxy_url)
    try:
        remote = repository.ask_remote(REMOTE_DEADLINE_S)
    except (Unavailable, Refused) as reason:
        remedy = "check its address and credentials: git remote -v, git ls-remote"
        yield problem("controller repository", harmless(str(reason)), remedy)
    else:
        yield fine("controller repository", f"its remote '{remote}' answers")


def check_inbox(site: Site) -> Iterator[Finding]:
    """Exists, journal mode, writable, schema: four lines. The bytes are looked at; the rest is the adapter's word."""
    path = site.settings.inbox_path
    subjects = ("inbox journal", "inbox rights", "inbox tables")
    try:
        head = _head(path)
    except OSError as error:
        if path.parent.is_dir():
            remedy = "start the controller: it makes the file (TEG_CONTROLLER_DATA_PATH names its directory)"
            yield problem("inbox", f"{path} cannot be read: {error.strerror}", remedy)
        else:
            text = f"there is no directory {path.parent}, where the controller should write"
            yield problem(
                "inbox", text, "correct TEG_CONTROLLER_DATA_PATH; the gateway makes the directory when it starts"
            )
        yield from (skipped(subject, "not tried: no inbox") for subject in subjects)
        return
    yield fine("inbox", str(path))
    if head[18:20] == WAL_BYTES:
        yield fine("inbox journal", "write-ahead log")
    else:
        remedy = "the controller should run PRAGMA journal_mode=WAL once"
        yield warning("inbox journal", "no write-ahead log: controller and gateway wait for each other", remedy)
    yield _inbox_rights(path)
    yield from _inbox_tables(path)


def _head(path: Path) -> bytes:
    """The controller chooses what lies there: no link is followed, and no pipe waited for."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        return file.read(20) or b"" if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else b""


def check_confinement(site: Site) -> Iterator[Finding]:
    """What keeps the process that reads the inbox apart, and what this machine lacks for it."""
    path = site.settings.inbox_path.parent
    try:
        layers = confinement(path)
    except (OSError, EOFError, BrokenFrame) as error:
        yield skipped("inbox confinement", f"the reader could not be tried in {path}: {harmless(str(error))}")
        return
    in_force = ", ".join(name for name, missing in layers.items() if not missing)
    if absent := [f"{name} ({reason})" for name, reason in layers.items() if reason]:
        remedy = "see docs/security.md; the layers in force hold without it"
        yield warning("inbox confinement", f"{in_force or 'none'}; not: {harmless(', '.join(absent))}", remedy)
    else:
        yield fine("inbox confinement", in_force)


def _inbox_rights(path: Path) -> Finding:
    if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK | os.X_OK):
        return fine("inbox rights", "it can be read and emptied")
    remedy = f"chown it and its directory to the gateway's user: chown teg {path.parent} {path}*"
    return problem("inbox rights", f"{path} cannot be written, so nothing would leave it", remedy)


def _inbox_tables(path: Path) -> Iterator[Finding]:
    inbox = Inbox(path)
    try:
        rows = inbox.has_rows()
        heartbeat_ms = inbox.last_heartbeat_ms()
    except Unavailable as reason:
        yield problem("inbox tables", harmless(str(reason)), "see docs/controller-client.md for its tables")
    else:
        yield fine("inbox tables", "measurements wait in it" if rows else "it is empty: all was picked up")
        yield _heartbeat(heartbeat_ms)
    finally:
        inbox.close()


def _heartbeat(heartbeat_ms: int | None) -> Finding:
    remedy = "see what the controller does: docker logs teg_controller"
    if heartbeat_ms is None:
        return warning("heartbeat", "the controller has never sent one", remedy)
    quiet_s = time.time() - heartbeat_ms / 1000
    if quiet_s > QUIET_CONTROLLER_S:
        return warning("heartbeat", f"the controller has been silent for {age(quiet_s)}", remedy)
    return fine("heartbeat", f"{age(quiet_s)} ago")
