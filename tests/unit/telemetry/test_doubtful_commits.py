"""An archive that says it could not, and did: the disk failed after the commit, when the files were looked at."""

from pathlib import Path

import pytest

from teg.adapters.gateway_db.database import Database
from tests.support.loss_scenarios import a_world


def test_rows_whose_commit_was_reported_as_failed_are_archived_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with a_world(tmp_path, monkeypatch) as world:
        world.archive(10)
        records = world.life.records
        store = records.store

        def committed_and_failed(*arguments: object, **options: object) -> None:
            """Once."""
            monkeypatch.setattr(records, "store", store)
            with monkeypatch.context() as patch:
                patch.setattr(Database, "_after_commit", _disk_error)
                store(*arguments, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(records, "store", committed_and_failed)
        world.archive(20)
        world.settle()
        world.compare()


def _disk_error(*_: object) -> None:
    raise OSError(5, "Input/output error")
