"""What the machine says about itself, from copies of its files."""

from pathlib import Path

import pytest

from teg.adapters.host import condition
from teg.domain.errors import Unavailable


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("bits", "expected"),
    [("0\n", (False, False)), ("0x50005\n", (True, True)), ("50000", (False, True)), ("x", None)],
)
def test_undervoltage(tmp_path: Path, bits: str, expected: tuple[bool, bool] | None) -> None:
    assert condition.undervoltage(tmp_path) is None
    put(tmp_path / condition.THROTTLED, bits)
    assert condition.undervoltage(tmp_path) == expected


def test_the_worst_card_counts(tmp_path: Path) -> None:
    assert condition.card_wear_percent(tmp_path) is None
    put(tmp_path / "block/mmcblk0/device/life_time", "0x00 0x00\n")
    assert condition.card_wear_percent(tmp_path) is None, "0 means: not told"
    put(tmp_path / "block/mmcblk1/device/life_time", "0x01 0x09\n")
    assert condition.card_wear_percent(tmp_path) == 90


def test_memory(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        condition.memory_bytes(tmp_path)
    put(tmp_path / "meminfo", "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:  500 kB\n")
    assert condition.memory_bytes(tmp_path) == (1_024_000, 512_000)
    assert condition.memory_bytes()[0] > 0


def test_a_write_is_timed_and_leaves_nothing(tmp_path: Path) -> None:
    assert condition.write_ms(tmp_path) > 0
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(Unavailable):
        condition.write_ms(tmp_path / "missing")


def test_the_kernel_says_something_about_the_clock() -> None:
    assert condition.clock_is_synchronised() in (True, False, None)
