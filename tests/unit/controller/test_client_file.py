"""The controller's client and its file: shared with the gateway, replaced underneath, and what it is made of."""

import ast
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from controller_client import Gateway, NotRecorded, teg_controller
from tests.support.client_file import NOW, FakeClock, rows, stamps


class TestSharedWithTheGateway:
    def test_nothing_is_lost_while_another_connection_moves_rows_out(self, path: Path) -> None:
        taken: list[int] = []
        done = threading.Event()

        def take(connection: sqlite3.Connection) -> int:
            connection.execute("BEGIN IMMEDIATE")
            batch = connection.execute("SELECT id, message FROM messages ORDER BY id LIMIT 7").fetchall()
            connection.executemany("DELETE FROM messages WHERE id = ?", [(id,) for id, _ in batch])
            connection.execute("COMMIT")
            taken.extend(json.loads(message)["values"]["n"] for _, message in batch)
            return len(batch)

        def consume() -> None:
            with closing(sqlite3.connect(path, timeout=20, isolation_level=None)) as connection:
                while take(connection) or not done.is_set():
                    pass

        with Gateway(path) as gateway:
            gateway.send({"n": -1})
            reader = threading.Thread(target=consume)
            reader.start()
            for number in range(300):
                gateway.send({"n": number})
            done.set()
            reader.join(30)
        assert taken == list(range(-1, 300))

    def test_a_lock_held_by_another_is_waited_for(self, gateway: Gateway, path: Path) -> None:
        gateway.send({"a": 1})
        with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
            other.execute("BEGIN IMMEDIATE")
            release = threading.Timer(0.6, other.execute, ["COMMIT"])
            release.start()
            gateway.send({"a": 2})
            release.join()
        assert len(rows(path)) == 2

    def test_a_lock_held_too_long_is_a_clear_error_and_nothing_breaks(self, path: Path) -> None:
        with Gateway(path, retry_s=0.4) as gateway, closing(sqlite3.connect(path, isolation_level=None)) as other:
            gateway.send({"a": 1})
            other.execute("BEGIN IMMEDIATE")
            started = time.monotonic()
            with pytest.raises(NotRecorded, match=r"communication_queue\.db could not be written for 0\.4 s.*another"):
                gateway.send({"a": 2})
            assert 0.3 < time.monotonic() - started < 5
            other.execute("ROLLBACK")
            gateway.send({"a": 3})
            assert [message["values"]["a"] for _, message in rows(path)] == [1, 3]

    def test_a_lock_at_the_very_first_opening_is_waited_for(self, gateway: Gateway, path: Path) -> None:
        with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
            other.execute("BEGIN EXCLUSIVE")
            release = threading.Timer(0.6, other.execute, ["COMMIT"])
            release.start()
            gateway.send({"a": 1})
            release.join()
        assert len(rows(path)) == 1

    def test_a_thread_that_waits_for_another_thread_keeps_to_its_time(self, path: Path) -> None:
        with Gateway(path, retry_s=0.3) as gateway:
            gateway.send({"a": 1})
            with gateway._lock, pytest.raises(NotRecorded, match="another thread"):
                gateway.send({"a": 2})

    def test_a_frozen_process_that_holds_the_lock(self, gateway: Gateway, path: Path) -> None:
        gateway.send({"a": 1})
        code = (
            "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
            "c.execute('BEGIN IMMEDIATE'); print('held', flush=True); time.sleep(600)\n"
        )
        command = [sys.executable, "-c", code, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout is not None and holder.stdout.readline() == "held\n"
            holder.send_signal(signal.SIGSTOP)
            threading.Timer(0.5, holder.kill).start()
            gateway.send({"a": 2})
        assert len(rows(path)) == 2


class TestTheFileChangesUnderneath:
    def test_an_unlinked_file_is_made_anew(self, gateway: Gateway, path: Path) -> None:
        gateway.send({"a": 1})
        for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
            name.unlink()
        gateway.send({"a": 2})
        assert [message["values"]["a"] for _, message in rows(path)] == [2]

    def test_a_replaced_file_is_followed_and_its_wal_left_alone(
        self, gateway: Gateway, path: Path, tmp_path: Path
    ) -> None:
        gateway.send({"a": 1})
        aside = tmp_path / "aside"
        aside.mkdir()
        for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
            name.rename(aside / name.name)
        with Gateway(path, clock=FakeClock()) as second:
            second.send({"a": 2})
            gateway.send({"a": 3})
            assert Path(f"{path}-wal").stat().st_size > 0
            second.send({"a": 4})
        assert [message["values"]["a"] for _, message in rows(path)] == [2, 3, 4]
        assert [message["values"]["a"] for _, message in rows(aside / path.name)] == [1]

    def test_a_file_replaced_between_begin_and_commit_gets_the_record_with_the_same_stamp(
        self, path: Path, tmp_path: Path
    ) -> None:
        aside = tmp_path / "aside.db"

        def clock_that_moves_the_file() -> int:
            if path.exists() and not aside.exists():
                path.rename(aside)
            return NOW

        with Gateway(path, clock=clock_that_moves_the_file) as gateway:
            assert gateway.send({"a": 1}) == NOW
            assert stamps(path) == [NOW]

    def test_dropped_tables_come_back(self, gateway: Gateway, path: Path) -> None:
        gateway.send({"a": 1})
        with closing(sqlite3.connect(path)) as other, other:
            for name in ("messages", "health_check", "teg_last_ts"):
                other.execute(f"DROP TABLE {name}")
        gateway.send({"a": 2})
        gateway.heartbeat()
        assert len(stamps(path)) == 1 and stamps(path)[0] > NOW

    def test_a_table_that_somebody_else_made(self, path: Path) -> None:
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("CREATE TABLE messages(id INTEGER PRIMARY KEY, type text, message text)")
        with Gateway(path, clock=FakeClock()) as gateway:
            gateway.send({"a": 1})
            assert stamps(path) == [NOW]

    def test_a_destroyed_file_is_an_error_and_never_deleted(self, path: Path) -> None:
        path.write_bytes(b"this is no database" * 1_000)
        with Gateway(path, retry_s=0.1) as gateway, pytest.raises(NotRecorded, match="not a database"):
            gateway.send({"a": 1})
        assert path.read_bytes().startswith(b"this is no database")

    def test_a_missing_directory_is_waited_for(self, tmp_path: Path) -> None:
        path = tmp_path / "mount" / "communication_queue.db"
        with Gateway(path, retry_s=10) as gateway:
            mount = threading.Timer(0.3, path.parent.mkdir)
            mount.start()
            gateway.send({"a": 1})
            mount.join()
            assert len(rows(path)) == 1

    def test_a_directory_that_stays_missing_is_said(self, tmp_path: Path) -> None:
        gateway = Gateway(tmp_path / "no" / "q.db", retry_s=0)
        with pytest.raises(NotRecorded, match="is the directory there"):
            gateway.send({"a": 1})
        assert not (tmp_path / "no").exists()

    def test_a_forked_child_opens_its_own(self, path: Path) -> None:
        code = (
            "import os, sys; from controller_client import Gateway\n"
            "g = Gateway(sys.argv[1]); g.send({'who': 'parent'})\n"
            "inherited = g._connection; child = os.fork()\n"
            "g.send({'who': 'both'}); assert (g._connection is inherited) == bool(child)\n"
            "if child: assert os.waitpid(child, 0)[1] == 0\n"
            "g.send({'who': 'after'})\n"
            "g.close()\n"
        )
        root = Path(__file__).resolve().parents[3]
        subprocess.run([sys.executable, "-c", code, str(path)], cwd=root, check=True, timeout=60)
        assert sorted(message["values"]["who"] for _, message in rows(path)) == [
            *["after"] * 2,
            *["both"] * 2,
            "parent",
        ]
        assert len(set(stamps(path))) == 5


class TestTheFileItself:
    source = Path(teg_controller.__file__).read_text()

    def test_is_python_3_8(self) -> None:
        ast.parse(self.source, feature_version=(3, 8))

    def test_imports_only_the_standard_library(self) -> None:
        names = set()
        for node in ast.walk(ast.parse(self.source)):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add((node.module or "").partition(".")[0])
        assert names <= sys.stdlib_module_names

    def test_works_when_copied_alone(self, tmp_path: Path) -> None:
        shutil.copy(teg_controller.__file__, tmp_path)
        code = "import teg_controller as t\nwith t.Gateway() as g: g.send({'a': 1})"
        environment = {**os.environ, "TEG_CONTROLLER_DATA_PATH": str(tmp_path)}
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, timeout=60)
        assert len(rows(tmp_path / "communication_queue.db")) == 1

    def test_a_signal_in_the_middle_leaves_no_lock(self, path: Path) -> None:
        def clock_that_is_interrupted() -> int:
            raise KeyboardInterrupt

        with Gateway(path, clock=clock_that_is_interrupted) as gateway:
            with pytest.raises(KeyboardInterrupt):
                gateway.send({"a": 1})
            with Gateway(path, retry_s=0) as other:
                other.send({"a": 2})
            assert len(rows(path)) == 1
