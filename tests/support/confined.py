"""What the tests of the confined file system share."""

import os
from pathlib import Path

import pytest

from teg.domain.errors import Refused
from teg.domain.files.ports import FileStore

SECRET = b"outside, must stay as it is"


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away or make devices")


def refused_everywhere(store: FileStore, path: Path | str) -> None:
    """Reading is an attack as well: FILE_READ_ would carry the bytes to the server."""
    with pytest.raises(Refused):
        store.look(str(path))
    with pytest.raises(Refused):
        store.write(str(path), b"evil")
    with pytest.raises(Refused):
        store.remove(str(path))
