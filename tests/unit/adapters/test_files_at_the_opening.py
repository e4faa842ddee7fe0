"""Somebody touches gateway.db between SQLite's opening of it and our own look: no row of the log is lost.

The log is long at that moment: the life before ended while another program held the archive, or was killed.
"""

import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from teg.adapters.gateway_db import database
from teg.adapters.gateway_db.open_files import OpenFiles
from tests.support.archives import AT_THE_NAMES, Archive, index_of


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """The directory of a life that was killed: 100 rows in the file, 69 in the log alone."""
    with closing(Archive(tmp_path / "data")) as archive:
        archive.store(*range(100))
        archive.database.checkpoint()
        archive.store(*range(100, 169))
        directory = tmp_path / "killed"
        subprocess.run(["cp", "-a", archive.path.parent, directory], check=True)
    index_of(directory / archive.path.name).unlink()
    return directory


@pytest.mark.parametrize("what", AT_THE_NAMES.values(), ids=AT_THE_NAMES.keys())
def test_what_sqlite_opened_is_what_counts(
    killed: Path, what: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    touches = [what]

    def touched(path: Path) -> OpenFiles:
        while touches:
            touches.pop()(path)
        return OpenFiles(path)

    monkeypatch.setattr(database, "OpenFiles", touched)
    with closing(Archive(killed)) as archive:
        archive.store(169)  # ends well: from here on the inbox may forget it
        assert archive.numbers() == list(range(170))
        with closing(archive.after_kill()) as after:
            assert after.numbers() == list(range(170))
            assert after.pending() == list(range(170))
            after.assert_account()
            assert not after.salvage.due
