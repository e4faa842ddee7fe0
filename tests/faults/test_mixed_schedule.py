"""Faults of all kinds in a random order, several at a time, over several lives: 0 lost, 0 stuck, the account exact.

The seed is printed; TEG_TORTURE_SEED repeats one, TEG_TORTURE_SECONDS (60) and TEG_TORTURE_SEEDS (5) size the deep run.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mixed_schedule import mixed


@pytest.fixture
def seed() -> Iterator[int]:
    yield int(os.environ.get("TEG_TORTURE_SEED", time.time_ns() % 1_000_000))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_sample_of_the_mixed_schedule(tmp_path: Path, seed: int) -> None:
    mixed(tmp_path, seed, steps=15, seconds=15)


@pytest.mark.torture
@pytest.mark.timeout(0)
@pytest.mark.parametrize("number", range(int(os.environ.get("TEG_TORTURE_SEEDS", "5"))))
def test_the_mixed_schedule(tmp_path: Path, seed: int, number: int) -> None:
    seconds = float(os.environ.get("TEG_TORTURE_SECONDS", "60"))
    mixed(tmp_path, seed + number, steps=1_000_000, seconds=seconds)
