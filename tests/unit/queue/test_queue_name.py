"""What keeps gateways on one server apart."""

import re
from pathlib import Path

import pytest

from tasks.queue_name import queue_name
from teg.domain.errors import Unavailable


def test_it_is_the_same_at_every_start_and_of_nobody_else(tmp_path: Path) -> None:
    first = queue_name(tmp_path / "one" / "queue_name")
    assert re.fullmatch(r"teg-[0-9a-f]{16}", first)
    assert queue_name(tmp_path / "one" / "queue_name") == first
    assert queue_name(tmp_path / "two" / "queue_name") != first


def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    queue_name(tmp_path / "queue_name")
    assert [path.name for path in tmp_path.iterdir()] == ["queue_name"]
    assert (tmp_path / "queue_name").stat().st_mode & 0o777 == 0o600


def test_a_copied_card_in_another_board_is_another_gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serial = tmp_path / "serial-number"
    monkeypatch.setattr("tasks.queue_name._SERIAL", serial)
    names = set()
    for board in ("10000000a1b2c3d4\0", "10000000a1b2c3d5\0"):
        serial.write_text(board)
        names.add(queue_name(tmp_path / "data" / "queue_name"))
    assert len(names) == 2


def test_a_name_that_a_power_cut_left_empty_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "queue_name").touch()
    first = queue_name(tmp_path / "queue_name")
    assert queue_name(tmp_path / "queue_name") == first
    assert (tmp_path / "queue_name").read_text().strip()


def test_a_disk_that_does_not_let_us_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "queue_name").mkdir()
    with pytest.raises(Unavailable, match="queue_name"):
        queue_name(tmp_path / "queue_name")
