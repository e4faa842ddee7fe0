"""The marker beside the archive is a witness: whatever stands at its name, a start neither waits for it nor fails."""

import os
from pathlib import Path

import orjson
import pytest

from teg.adapters.gateway_db.marker import COUNTERS, LAST_IDS, Marker

NUMBERS = dict.fromkeys((*LAST_IDS, *COUNTERS), 7)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    Marker(tmp_path / "gateway.db").write(NUMBERS)
    assert Marker(tmp_path / "gateway.db").read() == NUMBERS


@pytest.mark.parametrize("kind", ["fifo", "directory", "link", "nothing", "rubbish", "empty"])
def test_anything_else_says_nothing(tmp_path: Path, kind: str) -> None:
    name = tmp_path / "gateway.db.marker"
    if kind == "fifo":
        os.mkfifo(name)
    elif kind == "directory":
        name.mkdir()
    elif kind == "link":
        (tmp_path / "elsewhere").write_bytes(orjson.dumps(NUMBERS))
        name.symlink_to(tmp_path / "elsewhere")
    elif kind != "nothing":
        name.write_bytes(b"\xff{" if kind == "rubbish" else b"")
    assert Marker(tmp_path / "gateway.db").read() == {}
