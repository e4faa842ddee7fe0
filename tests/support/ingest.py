"""Recording between a real inbox file and a real archive, and crashes at each step between them."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from teg.adapters.gateway_db import outbox
from teg.adapters.gateway_db.database import Database
from teg.adapters.gateway_db.outbox import RecordTable
from teg.adapters.inbox.mailbox import Inbox
from teg.domain.telemetry.ingest import Recorder
from tests.support.running import ControllerInbox, message


class Crash(BaseException):
    """kill -9, as far as one process can play it: nothing after it runs."""


class Site:
    """A controller's inbox and a gateway's archive in one directory; `recorder()` is a gateway's new life."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.controller = ControllerInbox(path / "communication_queue.db")
        self.database = Database(path / "gateway.db")
        self.database.open(outbox.SCHEMA)
        self.table = RecordTable(self.database)
        self.inbox = Inbox(self.controller.path)
        self.notifications = 0

    def recorder(self) -> Recorder:
        self.inbox.close()
        self.inbox = Inbox(self.controller.path)
        return Recorder(self.inbox, self.table, self._stored, idle_timeout_s=0.0)

    def _stored(self) -> None:
        self.notifications += 1

    def archived(self) -> list[str]:
        return [text for (text,) in self.database.rows("SELECT message FROM record ORDER BY id")]

    def dead(self) -> list[tuple[bytes, str]]:
        return self.database.rows("SELECT message, reason FROM dead_letter ORDER BY id")

    def counter(self, name: str) -> int:
        return sum(value for key, value in self.database.rows("SELECT name, value FROM counter") if key == name)

    def close(self) -> None:
        self.inbox.close()
        self.controller.close()
        self.database.close()


def never() -> bool:
    return False


def texts(first: int, last: int) -> list[str]:
    return [message(number) for number in range(first, last + 1)]


def crash_at(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, *, after: bool, call: int = 1) -> None:
    original, calls = getattr(owner, name), 0

    def crashing(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and not after:
            raise Crash
        result = original(*arguments, **named)
        if calls == call:
            raise Crash
        return result

    monkeypatch.setattr(owner, name, crashing)


def after_store(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that dies between archiving and deleting."""
    with monkeypatch.context() as patch:
        recorder = site.recorder()
        crash_at(patch, site.inbox, "delete", after=False)
        with pytest.raises(Crash):
            recorder.run(never)


def recreate(site: Site, autoincrement: bool = True) -> None:
    site.controller.close()
    for suffix in ("", "-wal", "-shm"):
        site.controller.path.with_name(site.controller.path.name + suffix).unlink(missing_ok=True)
    if not autoincrement:
        connection = sqlite3.connect(site.controller.path)
        connection.execute("CREATE TABLE messages (id INTEGER PRIMARY KEY, type text, message text)")
        connection.close()
    site.controller = ControllerInbox(site.controller.path)
