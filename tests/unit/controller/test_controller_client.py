"""The controller's client: what it writes, how it stamps, and what it refuses. Real SQLite files throughout."""

import math
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from controller_client import Gateway, teg_controller
from tests.support.client_file import NOW, FakeClock, query, rows, stamps


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
