"""`teg sim`: a desk on which a controller is tried, out of the guide, by people who have nothing else."""

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from controller_client import teg_controller
from tests.support.running import PROJECT, wait_until

TEG = str(Path(sys.executable).parent / "teg")
GUIDE = (PROJECT / "docs" / "controller.md").read_text()


def environment(directory: Path) -> dict[str, str]:
    """Of a person who knows nothing of our variables; a gateway that is set up here must not be met."""
    return {"PATH": os.environ["PATH"], "HOME": str(directory), "TB_HOST": "a-real-server.invalid", "TB_PORT": "1"}


def first_example(directory: Path) -> None:
    found = re.search(r"`docker/main.py`\n\n```python\n(.*?)```", GUIDE, re.DOTALL)
    assert found is not None
    (directory / "main.py").write_text(found[1])
    shutil.copy(teg_controller.__file__, directory)


def test_the_guides_first_controller_is_seen_at_work(tmp_path: Path) -> None:
    first_example(tmp_path)
    command = [TEG, "sim", "desk", "--", "python3", "main.py"]
    log = tmp_path / "output"
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment(tmp_path), stdout=output, stderr=output)
    try:
        wait_until(lambda: "load = " in log.read_text(), 60, "the first value is shown")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    assert re.search(r"[1-9]\d* records arrived", log.read_text())


def test_a_controller_that_fails_ends_it_with_its_code(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("import sys; print('no sensor', file=sys.stderr); sys.exit(3)")
    command = [TEG, "sim", "desk", "--directory", "there", "--", "python3", "main.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=120)
    assert (done.returncode, "no sensor" in done.stderr) == (3, True), done
    assert (tmp_path / "there" / "controller").is_dir()


def test_server_and_controller_by_themselves(tmp_path: Path) -> None:
    inbox = tmp_path / "communication_queue.db"
    process = subprocess.Popen(
        [TEG, "sim", "controller", "--interval", "0.1", "--inbox", str(inbox)], stdout=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: inbox.exists() and _count(inbox) > 1, 60, "it records")
    finally:
        process.terminate()
        assert process.wait(30) == 0
    command = [TEG, "sim", "server", "--port", "0", "--device", "pi:T1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert '"listening"' in server.stdout.readline()
        server.terminate()
        server.stdout.read()
    assert server.returncode == 0


def _count(inbox: Path) -> int:
    with closing(sqlite3.connect(inbox)) as connection:
        found = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'messages'").fetchone()[0]
        return int(connection.execute("SELECT count(*) FROM messages").fetchone()[0]) if found else 0


@pytest.mark.parametrize("name", ["desk", "server", "controller"])
def test_each_explains_itself(name: str) -> None:
    done = subprocess.run([TEG, "sim", name, "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: ")
