"""A copy of the database while it is in use, and whether such a copy is whole: SQLite's online backup interface."""

import sqlite3
from contextlib import closing
from pathlib import Path

from teg.adapters.gateway_db.connections import sqlite_errors
from teg.adapters.gateway_db.database import APPLICATION_ID, SCHEMA_VERSION
from teg.domain.errors import Refused

#: Pages a step: between two steps the gateway writes as it likes, and what it wrote is copied, too.
STEP_PAGES = 2000


def copy_database(source: Path, target: Path) -> None:
    """Consistent, as of its end; raises Unavailable."""
    with sqlite_errors(source):
        uri = f"{source.absolute().as_uri()}?mode=ro"
        with (
            closing(sqlite3.connect(uri, uri=True, timeout=10.0)) as reader,
            closing(sqlite3.connect(target)) as writer,
        ):
            reader.backup(writer, pages=STEP_PAGES)


def check_database(path: Path) -> None:
    """
    Raises:
        Refused: not one of ours, of a newer gateway, or damaged.
        Unavailable: it cannot be read.
    """
    with sqlite_errors(path), closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        application, version = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
        if application != APPLICATION_ID:
            raise Refused(f"{path.name} is not a database of this gateway")
        if version > SCHEMA_VERSION:
            raise Refused(f"{path.name} is of a newer gateway (schema {version}, this one knows {SCHEMA_VERSION})")
        [found] = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise Refused(f"{path.name} is damaged: {found}")
