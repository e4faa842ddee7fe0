"""The controller's client: what it writes, how it stamps, and what it survives. Real SQLite files throughout."""

import ast
import json
import math
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from controller_client import Gateway, NotRecorded, teg_controller

NOW = 1_767_225_600_000


class FakeClock:
    def __init__(self, now_ms: int = NOW) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "communication_queue.db"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def gateway(path: Path, clock: FakeClock) -> Iterator[Gateway]:
    with Gateway(path, retry_s=5, clock=clock) as gateway:
        yield gateway


def query(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    return [(kind, json.loads(text)) for kind, text in query(path, "SELECT type, message FROM messages ORDER BY id")]


def stamps(path: Path) -> list[int]:
    return [message["ts"] for _, message in rows(path)]


class TestWhatIsWritten:
    def test_a_record_is_the_rows_the_gateway_expects(self, gateway: Gateway, path: Path) -> None:
        assert gateway.send({"co2_ppm": 415.25, "ok": True, "note": "dry", "cfg": {"a": [1, None]}}) == NOW
        values = {"co2_ppm": 415.25, "ok": True, "note": "dry", "cfg": {"a": [1, None]}}
        assert rows(path) == [("measurement", {"ts": NOW, "values": values})]

    def test_the_schema_is_the_contract_s(self, gateway: Gateway, path: Path) -> None:
        gateway.heartbeat()
        columns = "SELECT name, upper(type), pk FROM pragma_table_info('{}')"
        assert query(path, columns.format("messages")) == [
            ("id", "INTEGER", 1),
            ("type", "TEXT", 0),
            ("message", "TEXT", 0),
        ]
        assert query(path, columns.format("health_check")) == [("id", "INTEGER", 1), ("timestamp_ms", "INTEGER", 0)]
        assert query(path, "PRAGMA journal_mode") == [("wal",)]

    def test_ids_are_never_given_twice_even_when_the_gateway_has_emptied_the_table(
        self, gateway: Gateway, path: Path
    ) -> None:
        gateway.send({"a": 1})
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("DELETE FROM messages")
        gateway.send({"a": 2})
        assert query(path, "SELECT id FROM messages") == [(2,)]

    def test_a_type_and_a_time_stamp_of_ones_own(self, gateway: Gateway, path: Path) -> None:
        assert gateway.send({"a": 1}, ts=NOW - 5, type="calibration") == NOW - 5
        assert rows(path) == [("calibration", {"ts": NOW - 5, "values": {"a": 1}})]

    def test_a_log_line(self, gateway: Gateway, path: Path) -> None:
        gateway.send_log("info", "pump on")
        assert rows(path) == [("log", {"ts": NOW, "values": {"severity": "INFO", "message": "pump on"}})]

    def test_a_long_log_line_is_cut_not_refused(self, gateway: Gateway, path: Path) -> None:
        gateway.send_log("ERROR", "ä" * 100_000)
        assert rows(path)[0][1]["values"]["message"] == "ä" * teg_controller.MAX_LOG_LENGTH

    def test_many_are_one_transaction(self, gateway: Gateway, path: Path) -> None:
        assert gateway.send_many([{"a": 1}, {"a": 2}, {"a": 3}]) == [NOW, NOW + 1, NOW + 2]
        assert stamps(path) == [NOW, NOW + 1, NOW + 2]

    def test_many_with_the_times_they_were_sampled_at(self, gateway: Gateway, path: Path) -> None:
        assert gateway.send_many([{"a": 1}, {"a": 2}], ts=[NOW - 20, NOW - 10], type="fast") == [NOW - 20, NOW - 10]
        assert [(kind, row["ts"]) for kind, row in rows(path)] == [("fast", NOW - 20), ("fast", NOW - 10)]
        with pytest.raises(ValueError, match="1 time stamps for 2 records"):
            gateway.send_many([{"a": 1}, {"a": 2}], ts=[NOW])

    def test_none_at_all_is_nothing(self, gateway: Gateway, path: Path) -> None:
        assert gateway.send_many([]) == []
        assert rows(path) == []

    def test_one_bad_among_many_records_nothing(self, gateway: Gateway, path: Path) -> None:
        gateway.send({"a": 0})
        with pytest.raises(ValueError, match="'b'"):
            gateway.send_many([{"a": 1}, {"b": math.nan}])
        assert len(rows(path)) == 1

    def test_the_heartbeat_is_one_row_that_is_replaced(self, gateway: Gateway, path: Path, clock: FakeClock) -> None:
        gateway.heartbeat()
        clock.now_ms += 1_000
        gateway.heartbeat()
        assert query(path, "SELECT id, timestamp_ms FROM health_check") == [(1, NOW + 1_000)]

    def test_what_was_sent_is_flushed_unless_told_otherwise(self, path: Path) -> None:
        seen = []
        for durable in (True, False):
            with Gateway(path, durable=durable) as gateway:
                gateway.send({"a": 1})
                assert gateway._connection is not None
                seen += gateway._connection.execute("PRAGMA synchronous").fetchone()
        assert seen == [2, 1]

    def test_a_heartbeat_does_not_make_the_next_record_less_durable(self, gateway: Gateway) -> None:
        gateway.heartbeat()
        gateway.send({"a": 1})
        assert gateway._connection is not None
        assert gateway._connection.execute("PRAGMA synchronous").fetchone() == (2,)

    def test_no_transaction_is_left_open(self, gateway: Gateway) -> None:
        gateway.send({"a": 1})
        assert gateway._connection is not None
        assert not gateway._connection.in_transaction

    def test_the_wal_is_left_to_the_gateway(self, gateway: Gateway, path: Path) -> None:
        for number in range(600):
            gateway.send_many([{"a": number, "pad": "x" * 8_000}])
        wal = Path(f"{path}-wal").stat().st_size
        assert wal > 2_000 * 4_096  # sqlite's default would have copied and reused it by now

    def test_the_wal_does_not_grow_for_ever_without_the_gateway(self, gateway: Gateway, path: Path) -> None:
        for _ in range(30):
            gateway.send_many([{"pad": "x" * 8_000}] * 100)
        wal = Path(f"{path}-wal").stat().st_size
        assert wal < (teg_controller._WAL_PAGES_WITHOUT_GATEWAY + 500) * 4_120
        assert len(rows(path)) == 3_000

    def test_the_default_path_is_the_controller_s_data_directory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TEG_CONTROLLER_DATA_PATH", str(tmp_path))
        assert Gateway().path == tmp_path / "communication_queue.db"
        monkeypatch.delenv("TEG_CONTROLLER_DATA_PATH")
        assert Gateway().path == Path("/root/data/communication_queue.db")

    def test_a_closed_gateway_opens_again(self, gateway: Gateway, path: Path) -> None:
        gateway.send({"a": 1})
        gateway.close()
        gateway.close()
        gateway.send({"a": 2})
        assert len(rows(path)) == 2


class TestStamps:
    def test_grow_while_the_clock_stands_still(self, gateway: Gateway) -> None:
        assert [gateway.send({"a": 1}) for _ in range(4)] == [NOW, NOW + 1, NOW + 2, NOW + 3]

    def test_grow_when_the_clock_goes_back(self, gateway: Gateway, clock: FakeClock) -> None:
        gateway.send({"a": 1})
        clock.now_ms -= 3_000
        assert gateway.send({"a": 1}) == NOW + 1
        clock.now_ms = NOW + 50
        assert gateway.send({"a": 1}) == NOW + 50

    def test_grow_over_a_restart_though_the_gateway_took_every_row(self, path: Path) -> None:
        with Gateway(path, clock=FakeClock(NOW)) as first:
            first.send({"a": 1})
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("DELETE FROM messages")
        with Gateway(path, clock=FakeClock(NOW - 9_000)) as second:
            assert second.send({"a": 1}) == NOW + 1

    def test_grow_when_the_file_is_made_anew(self, gateway: Gateway, path: Path, clock: FakeClock) -> None:
        gateway.send({"a": 1})
        path.unlink()
        clock.now_ms -= 9_000
        assert gateway.send({"a": 1}) == NOW + 1

    def test_a_stamp_of_ones_own_does_not_move_the_others(self, gateway: Gateway) -> None:
        gateway.send({"a": 1}, ts=NOW + 10_000_000)
        assert gateway.send({"a": 1}) == NOW

    def test_a_clock_set_back_far_is_said_once(self, gateway: Gateway, path: Path, clock: FakeClock) -> None:
        gateway.send({"a": 1})
        clock.now_ms -= 3_600_000
        assert [gateway.send({"a": 1}) for _ in range(3)] == [NOW + 1, NOW + 3, NOW + 4]
        [(_, log)] = [row for row in rows(path) if row[0] == "log"]
        assert log["ts"] == NOW + 2
        assert log["values"]["severity"] == "WARN"
        assert "3600 s ahead" in log["values"]["message"]

    def test_can_be_let_go_after_a_wrong_future(self, gateway: Gateway, clock: FakeClock) -> None:
        clock.now_ms = NOW + 10**11
        gateway.send({"a": 1})
        clock.now_ms = NOW
        gateway.forget_clock()
        assert gateway.send({"a": 1}) == NOW

    def test_are_unique_over_threads(self, gateway: Gateway, path: Path) -> None:
        given: list[int] = []

        def work() -> None:
            for number in range(50):
                given.append(gateway.send({"a": number}))

        run_in_threads([work] * 4)
        assert len(given) == len(set(given)) == 200
        assert stamps(path) == sorted(given)

    def test_are_unique_over_processes(self, path: Path) -> None:
        code = (
            "import sys; from controller_client import Gateway\n"
            "with Gateway(sys.argv[1], clock=lambda: 1767225600000) as g:\n"
            "    for n in range(150): g.send({'a': n}); g.heartbeat()\n"
        )
        root = Path(__file__).resolve().parents[3]
        children = [subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=root) for _ in range(2)]
        assert [child.wait(60) for child in children] == [0, 0]
        assert stamps(path) == list(range(NOW, NOW + 300))


def run_in_threads(works: list[Callable[[], None]]) -> None:
    """Run them at the same time; an exception in one fails the test (pytest makes it an error)."""
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


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


class Bad:
    def __repr__(self) -> str:
        return "<Bad>"


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)


class TestWhatIsRefused:
    @pytest.mark.parametrize("values", [{}, [], None, "text", 5, [("a", 1)], {1, 2}], ids=repr)
    def test_values_that_are_no_dict_or_empty(self, gateway: Gateway, values: Any) -> None:
        with pytest.raises(ValueError, match="non-empty dict"):
            gateway.send(values)

    @pytest.mark.parametrize(
        "value",
        [math.nan, math.inf, -math.inf, [1, math.nan], {"x": math.nan}, Bad(), b"bytes", "\ud800", CIRCLE],
        ids=lambda value: repr(value)[:20],
    )
    def test_a_value_that_json_has_no_word_for_is_named_by_its_key(self, gateway: Gateway, value: Any) -> None:
        with pytest.raises(ValueError, match="value of 'co2'"):
            gateway.send({"ok": 1, "co2": value})

    def test_endless_nesting(self, gateway: Gateway) -> None:
        with pytest.raises(ValueError, match="value of 'deep'"):
            gateway.send({"deep": nested(100_000)})

    @pytest.mark.parametrize("key", ["", " \t", 5, None, "k" * 256, "\udfff"], ids=lambda key: repr(key)[:10])
    def test_a_key_the_server_would_drop(self, gateway: Gateway, key: Any) -> None:
        with pytest.raises(ValueError, match=r"a key has|value of"):
            gateway.send({key: 1})

    def test_more_than_one_message_can_carry(self, gateway: Gateway, path: Path) -> None:
        gateway.send({"a": "x" * (teg_controller.MAX_RECORD_BYTES - 8)})
        with pytest.raises(ValueError, match="59001 bytes"):
            gateway.send({"a": "x" * (teg_controller.MAX_RECORD_BYTES - 7)})
        assert len(rows(path)) == 1

    @pytest.mark.parametrize("ts", [True, "5", 1767225600000.5, math.nan, [], {}], ids=repr)
    def test_a_stamp_that_is_no_whole_number(self, gateway: Gateway, ts: Any) -> None:
        with pytest.raises(ValueError, match="whole number"):
            gateway.send({"a": 1}, ts=ts)

    @pytest.mark.parametrize("ts", [0, -NOW, NOW // 1000, NOW * 1_000_000])
    def test_a_stamp_in_another_unit(self, gateway: Gateway, ts: int) -> None:
        with pytest.raises(ValueError, match="milliseconds"):
            gateway.send({"a": 1}, ts=ts)

    @pytest.mark.parametrize("kind", ["", None, 5])
    def test_a_type_that_is_no_text(self, gateway: Gateway, kind: Any) -> None:
        with pytest.raises(ValueError, match="type"):
            gateway.send({"a": 1}, type=kind)

    def test_nothing_of_it_touches_the_disk(self, gateway: Gateway, path: Path) -> None:
        with pytest.raises(ValueError):
            gateway.send({"a": math.nan})
        assert not path.exists()


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
