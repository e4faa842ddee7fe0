"""Every code example of docs/controller-client.md runs, and what the page says about numbers is what the code says."""

import inspect
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from controller_client import Gateway, teg_controller
from teg.domain.telemetry import validation

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "controller-client.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
ENDLESS = [example for example in EXAMPLES if "while True" in example]
ENDING = [example for example in EXAMPLES if "while True" not in example]


def count(path: Path, table: str) -> int:
    if not path.exists():
        return 0
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0]
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]) if found else 0


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A controller's directory, with the client copied as the page says."""
    shutil.copy(teg_controller.__file__, tmp_path)
    (tmp_path / "my-data").mkdir()
    return tmp_path


def environment(place: Path) -> dict[str, str]:
    return {**os.environ, "TEG_CONTROLLER_DATA_PATH": str(place / "my-data")}


def test_there_are_examples() -> None:
    assert len(ENDLESS) == 1 and len(ENDING) >= 4


@pytest.mark.parametrize("example", ENDING, ids=range(len(ENDING)))
def test_an_example_records_something(place: Path, example: str) -> None:
    (place / "controller.py").write_text(example)
    command = [sys.executable, "-W", "error", "controller.py"]
    subprocess.run(command, cwd=place, env=environment(place), check=True, timeout=60)
    assert count(place / "my-data" / "communication_queue.db", "messages") >= 1


def test_the_complete_controller_runs_on(place: Path) -> None:
    (place / "controller.py").write_text(ENDLESS[0])
    inbox = place / "my-data" / "communication_queue.db"
    with subprocess.Popen([sys.executable, "controller.py"], cwd=place, env=environment(place)) as process:
        try:
            deadline = time.monotonic() + 30
            while count(inbox, "health_check") == 0:
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.01)
        finally:
            process.kill()
    assert count(inbox, "messages") == 2  # the log line and the first measurement


def test_the_numbers_on_the_page_are_those_of_the_code() -> None:
    assert f"{teg_controller.MAX_RECORD_BYTES:,} bytes" in PAGE
    assert f"1 to {teg_controller.MAX_KEY_LENGTH} characters" in PAGE
    assert f"{teg_controller._WAL_PAGES_WITHOUT_GATEWAY * 4096 >> 20} MiB" in PAGE
    parameters = inspect.signature(Gateway).parameters
    assert parameters["retry_s"].default == 30
    assert parameters["durable"].default is True


def test_the_client_refuses_what_the_gateway_would_set_aside() -> None:
    assert teg_controller.EARLIEST_TS_MS == validation.EARLIEST_TS_MS
    assert teg_controller.LATEST_TS_MS == validation.LATEST_TS_MS
    assert teg_controller.MAX_KEY_LENGTH == validation.MAX_KEY_CHARACTERS
    assert teg_controller.MAX_RECORD_BYTES + len('{"ts":253402300799999,"values":}') <= validation.MAX_RECORD_BYTES


@pytest.mark.parametrize("target", re.findall(r"\]\((\.\./[^)]+)\)", PAGE))
def test_its_links_into_the_source_lead_somewhere(target: str) -> None:
    assert (ROOT / "docs" / target).exists()
