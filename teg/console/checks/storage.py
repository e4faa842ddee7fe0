"""The gateway's own places: is it running, its directories, its database, its queue, where remote files may lie."""

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import orjson

from tasks.storage import open_storage, sqlite_path, storage_errors, without_password
from teg.adapters.gateway_db.database import SCHEMA_VERSION, Database
from teg.adapters.gateway_db.state import ClientAttributeTable
from teg.console.checks.finding import Finding, Site, fine, problem, skipped, warning
from teg.console.opening import is_running
from teg.console.wording import age, harmless
from teg.domain.errors import Refused, Unavailable
from teg.domain.files.reports import ERROR as FILE_ERROR
from teg.domain.files.reports import FILES_ERROR

OLD_BACKLOG_S = 3600


def check_gateway(site: Site) -> Iterator[Finding]:
    path = site.settings.data_path
    if site.gateway is not None:
        yield fine("gateway", f"running for {age(site.gateway['uptime_s'])}")
    elif is_running(path):
        yield warning("gateway", "it holds its lock and does not answer: it starts, stops, or hangs", "see its log")
    else:
        yield warning("gateway", "it does not run", "systemctl start teg, or: teg run")


def check_data_path(site: Site) -> Iterator[Finding]:
    path = site.settings.data_path
    if not path.exists():
        yield fine("data directory", f"{path} will be made at the first start")
    elif os.statvfs(path).f_flag & os.ST_RDONLY:
        text = f"{path} is on a file system that is mounted read-only"
        yield problem("data directory", text, "see dmesg: a card that fails is; else mount -o remount,rw")
    elif not os.access(path, os.W_OK | os.X_OK):
        yield problem("data directory", f"{path} cannot be written by this user", f"use sudo, or: chown -R teg {path}")
    elif path.stat().st_mode & 0o007:
        yield warning("data directory", f"everybody on this machine can look into {path}", f"chmod o-rwx {path}")
    else:
        yield fine("data directory", str(path))


def check_token_file(site: Site) -> Iterator[Finding]:
    path = site.settings.access_token_path
    if not path.exists():
        yield skipped("token file", f"there is no {path} yet")
    elif path.stat().st_mode & 0o077:
        yield warning("token file", f"others can read {path}", f"chmod 600 {path}")
    else:
        yield fine("token file", f"{path}, for its owner alone")


def check_database(site: Site) -> Iterator[Finding]:
    path = site.settings.data_path / "gateway.db"
    if not path.exists():
        yield skipped("database", "none yet: the gateway has not run with these settings")
        return
    database = Database(path, read_only=True)
    try:
        version = database.rows("PRAGMA user_version")[0][0]
        rows = database.rows("SELECT count(*) FROM outbox")[0][0]
    except Unavailable as reason:
        yield problem("database", harmless(str(reason)), "stop the gateway, keep a copy of the file, start it again")
    else:
        if version > SCHEMA_VERSION:
            text = f"{path} has schema {version}, this gateway knows {SCHEMA_VERSION}"
            yield problem(
                "database", text, "go forward again, or restore the backup made before: a newer gateway wrote it"
            )
            return
        yield fine("database", f"{path} is readable, {rows} records wait in it")
    finally:
        database.close()


def check_backlog(site: Site) -> Iterator[Finding]:
    archive = (site.gateway or {}).get("archive", {})
    waiting_s = archive.get("oldest_pending_age_s")
    if site.gateway is None or "error" in archive:
        yield skipped("backlog", "only the running gateway knows")
    elif waiting_s and waiting_s > OLD_BACKLOG_S:
        text = f"{archive['pending']} records wait, the oldest for {age(waiting_s)}"
        yield warning("backlog", text, "see the lines about the server; it drains by itself once connected")
    else:
        yield fine("backlog", f"{archive.get('pending', 0)} records wait")


def check_queue(site: Site) -> Iterator[Finding]:
    """A file is looked at only; a server is asked."""
    url = site.settings.queue_url
    shown = without_password(url)
    if (path := sqlite_path(url)) is not None:
        yield from _queue_file(path)
        return
    try:
        with storage_errors(url):
            storage = open_storage(url, "teg-check")
            storage.queue_size()
            storage.close()
    except (Unavailable, Refused) as reason:
        text = f"{shown} cannot be used: {harmless(str(reason))}"
        yield problem("queue", text, "start that server, or leave TEG_QUEUE_URL out")
    else:
        yield fine("queue", shown)


def _queue_file(path: Path) -> Iterator[Finding]:
    nearest = next(each for each in (path, *path.parents) if each.exists())
    if os.access(nearest, os.W_OK):
        yield fine("queue", str(path))
    else:
        yield problem("queue", f"{nearest} cannot be written by this user", f"use sudo, or: chown teg {nearest}")


def check_remote_files(site: Site) -> Iterator[Finding]:
    """What the gateway last told the server of the files that it cannot have here."""
    path = site.settings.data_path / "gateway.db"
    if not path.exists():
        yield skipped("remote files", "the gateway has not run with these settings")
        return
    database = Database(path, read_only=True)
    try:
        refused = dict(_refused_files(ClientAttributeTable(database)))
    except (Unavailable, sqlite3.Error) as reason:  # another version's file has other tables: its own line says so
        yield skipped("remote files", harmless(str(reason)))
        return
    finally:
        database.close()
    for key, problem_told in refused.items():
        remedy = "correct its entry in FILES, or add its folder to TEG_FILE_ROOTS (docs/files.md)"
        yield warning("remote files", f"{harmless(key)}: {harmless(problem_told)}", remedy)
    if not refused:
        yield fine("remote files", "none is refused")


def _refused_files(attributes: ClientAttributeTable) -> Iterator[tuple[str, str]]:
    told = {key: value for key, value, _ in attributes.pending()} | dict(attributes.told())
    for key, value in sorted(told.items()):
        if (key == FILES_ERROR or key.startswith(FILE_ERROR)) and (reason := str(orjson.loads(value) or "")):
            yield key.removeprefix(FILE_ERROR), reason


def check_file_roots(site: Site) -> Iterator[Finding]:
    bad = [root for root in site.settings.file_roots if not (root.is_dir() and os.access(root, os.W_OK))]
    for root in bad:
        text = f"{root} does not exist or cannot be written"
        yield warning("file roots", text, f"mkdir {root}, or take it out of TEG_FILE_ROOTS")
    if not bad:
        yield fine("file roots", ", ".join(map(str, site.settings.file_roots)))
