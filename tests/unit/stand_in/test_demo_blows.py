"""What the demo's blows do to a database, when a blow counts as survived, and the order of the script."""

import math
import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from teg.simulator.demo.account import Arrived, Recorded, Snapshot
from teg.simulator.demo.blows import BLOWS, Blows
from teg.simulator.demo.schedule import OUTAGE_S, PATIENCE_S, SCRIPT, Schedule, fitting
from teg.simulator.demo.unsynced import drop_unsynced, end_of_last_commit
from teg.simulator.demo.world import World

EIGHT_KINDS = set("nkpdxcgb")


def written(path: Path) -> sqlite3.Connection:
    """An open database with three committed rows and a fourth that is in the log, but not committed."""
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "CREATE TABLE t(x, filler)"):
        connection.execute(statement)
    for number in range(3):
        connection.execute("INSERT INTO t VALUES (?, zeroblob(9000))", (number,))
    connection.execute("PRAGMA cache_size=1")  # what is not committed is spilled into the log
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO t VALUES (?, zeroblob(9000))", [(number,) for number in range(3, 40)])
    return connection


class TestUnsynced:
    def test_what_was_committed_stays_and_the_rest_goes(self, tmp_path: Path) -> None:
        original, copy = tmp_path / "a.db", tmp_path / "b.db"
        with closing(written(original)):
            for suffix in ("", "-wal"):
                copy.with_name(copy.name + suffix).write_bytes(original.with_name(original.name + suffix).read_bytes())
        log = copy.with_name("b.db-wal")
        before = log.stat().st_size
        assert drop_unsynced(copy) > 50_000
        assert end_of_last_commit(log.read_bytes()) < log.stat().st_size < before, "half a frame is left behind it"
        with closing(sqlite3.connect(copy)) as again:
            assert [row[0] for row in again.execute("SELECT x FROM t ORDER BY x")] == [0, 1, 2]
            assert again.execute("PRAGMA integrity_check").fetchone() == ("ok",)

    def test_frames_of_an_earlier_round_are_not_taken_for_commits(self, tmp_path: Path) -> None:
        path = tmp_path / "a.db"
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("CREATE TABLE t(x)")
            connection.executemany("INSERT INTO t VALUES (?)", [(number,) for number in range(50)])
            connection.execute("PRAGMA wal_checkpoint(RESTART)")
            connection.execute("INSERT INTO t VALUES (99)")
            log = path.with_name("a.db-wal").read_bytes()
        assert end_of_last_commit(log) == 32 + 24 + 4096 < len(log)

    def test_nothing_to_cut(self, tmp_path: Path) -> None:
        assert drop_unsynced(tmp_path / "none.db") == 0
        (tmp_path / "empty.db-wal").touch()
        assert drop_unsynced(tmp_path / "empty.db") == 0
        assert (tmp_path / "empty.db-wal").read_bytes() == b""


class Device(SimpleNamespace):
    def assign_software(self, _title: str, version: str) -> None:
        self.assigned = version


class StillWorld(SimpleNamespace):
    """Everything runs; the test says otherwise."""

    def switch_network(self, on: bool) -> None:
        self.network = on

    def kill_gateway(self) -> bool:
        return bool(self.gateway.running)

    def refuse_writes(self, refused: bool) -> bool:
        self.full = refused
        return bool(self.gateway.running)

    def gateway_db_pages(self) -> int:
        return 2


@pytest.fixture
def world() -> StillWorld:
    return StillWorld(network=True, gateway=SimpleNamespace(running=True), device=Device())


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def blows(world: StillWorld, said: list[str]) -> Blows:
    return Blows(cast(World, world), said.append)


def at(second: float, recorded: int, delivered: int, connected: bool = True, **latest: Any) -> Snapshot:
    arrived = Arrived(connected, {"a": delivered}, latest)
    return Snapshot(second, Recorded(recorded, {"a": recorded}), arrived=arrived)


class TestSurvival:
    def test_a_blow_is_survived_when_what_was_before_it_and_something_newer_has_arrived(
        self, blows: Blows, said: list[str]
    ) -> None:
        blows.strike("k", at(1.0, 100, 100))
        for waiting in (at(1.2, 100, 100), at(2.0, 150, 100), at(3.0, 150, 110), at(4.0, 150, 149, connected=False)):
            blows.tend(waiting)
            assert not blows.survived
        blows.tend(at(5.5, 150, 149))
        assert blows.survived
        assert said[-1] == "✓ k: survived, 4.5 s after the blow"

    def test_not_while_the_network_is_off(self, blows: Blows) -> None:
        blows.strike("n", at(1, 10, 10))
        blows.tend(at(2, 20, 20))
        assert not blows.survived
        blows.strike("n", at(3, 20, 20))
        blows.tend(at(4, 30, 30))
        assert blows.survived and blows.struck == {"outage": 1}

    def test_not_while_the_disk_is_full(self, blows: Blows, world: StillWorld, monkeypatch: pytest.MonkeyPatch) -> None:
        blows.strike("d", at(1, 10, 10))
        assert world.full
        blows.tend(at(2, 20, 20))
        assert not blows.survived
        monkeypatch.setattr("teg.simulator.demo.blows.time", SimpleNamespace(monotonic=lambda: math.inf))
        blows.tend(at(9, 20, 20))
        assert blows.survived and not world.full

    def test_an_update_is_over_when_the_server_was_told_its_end(self, blows: Blows) -> None:
        blows.strike("g", at(1, 10, 10))
        blows.tend(at(2, 20, 20, sw_state="UPDATING", current_sw_version="v1"))
        blows.tend(at(3, 20, 20, sw_state="UPDATED", current_sw_version="v1"))
        assert not blows.survived
        blows.tend(at(4, 20, 20, sw_state="UPDATED", current_sw_version="v2"))
        assert blows.survived
        blows.strike("b", at(5, 20, 20))
        blows.tend(at(6, 30, 30, sw_state="UPDATED", current_sw_version="v2"))
        assert not blows.survived
        blows.tend(at(7, 30, 30, sw_state="FAILED", current_sw_version="v2"))
        assert blows.survived

    def test_what_struck_nothing_is_not_counted(self, blows: Blows, world: StillWorld, said: list[str]) -> None:
        world.gateway.running = False
        for key in "kdx":
            blows.strike(key, at(1, 10, 10))
        assert not blows.struck and blows.survived and len(said) == 3
        assert blows.account(0).startswith("survived: no blows")

    def test_an_unknown_key_is_nothing(self, blows: Blows, said: list[str]) -> None:
        for key in "zK\x1b[A ":
            blows.strike(key, at(1, 1, 1))
        assert not said

    def test_the_account_counts_blows_and_kinds_and_does_not_call_a_loss_survived(self, blows: Blows) -> None:
        for key in "knnk":
            blows.strike(key, at(1, 1, 1))
        assert blows.account(0) == "survived: 3 blows of 2 kinds: kill of the gateway x 2, outage x 1"
        assert blows.account(4) == (
            "struck, with 4 values lost: 3 blows of 2 kinds: kill of the gateway x 2, outage x 1"
        )


class TestScript:
    def played(self, seconds: float, survival_s: float = 1.0, first_s: float = 2.0) -> tuple[str, float]:
        """The keys of a whole run whose blows are survived after that long, and the second of its end."""
        schedule, keys, struck_s, network = Schedule(seconds), "", -math.inf, True
        for tick in range(100_000):
            now_s = tick / 10
            first = first_s if now_s >= first_s else None
            survived = network and now_s - struck_s >= survival_s
            if key := schedule.due(now_s, first, survived):
                keys, struck_s, network = keys + key, now_s, network != (key == "n")
            if schedule.is_over(now_s, first):
                return keys, now_s
        raise AssertionError("it does not end")

    @pytest.mark.parametrize(("seconds", "keys"), [(4, ""), (8, "nnkrf"), (20, "nnkrfcxp"), (40, "nnkrfcxpdgb")])
    def test_a_run_strikes_what_its_time_is_enough_for(self, seconds: float, keys: str) -> None:
        assert self.played(seconds)[0] == keys

    def test_a_long_run_has_all_kinds(self) -> None:
        keys, end_s = self.played(70)
        assert EIGHT_KINDS <= set(keys) <= set(BLOWS) and end_s == pytest.approx(72, abs=0.2)

    def test_every_run_with_a_script_has_an_outage_and_a_kill_or_at_least_an_outage(self) -> None:
        assert {"n", "k"} <= {step.key for step in fitting(8)}
        assert "".join(step.key for step in fitting(6)) == "nn"
        assert fitting(4) == [], "a network that goes and does not come back shows nothing"

    def test_a_slow_machine_plays_the_same_script_only_longer(self) -> None:
        keys, end_s = self.played(32, survival_s=10)
        assert keys == "".join(step.key for step in SCRIPT) and end_s > 80

    def test_what_is_never_survived_does_not_stop_the_script(self) -> None:
        keys, end_s = self.played(32, survival_s=math.inf)
        assert keys == "".join(step.key for step in SCRIPT) and end_s < len(SCRIPT) * (PATIENCE_S + 1)

    def test_nothing_strikes_before_the_first_value_has_arrived(self) -> None:
        schedule = Schedule(20)
        assert all(schedule.due(second, None, True) == "" for second in range(59))
        assert schedule.due(59.1, 59.0, True) == ""
        assert schedule.due(61.0, 59.0, True) == "n"
        assert schedule.due(61.0 + OUTAGE_S / 2, 59.0, False) == ""
        assert schedule.due(61.0 + OUTAGE_S, 59.0, False) == "n", "an outage ends whether it is survived or not"

    def test_a_run_without_any_value_ends_all_the_same(self) -> None:
        assert Schedule(6).is_over(60.0, None)
        assert not Schedule(90).is_over(60.0, None)
        assert Schedule(90).is_over(90.0, None)
        assert not Schedule(math.inf).is_over(1e9, None)

    def test_no_script_without_an_end(self) -> None:
        schedule = Schedule(math.inf)
        assert schedule.due(1e9, 1.0, True) == "" and not schedule.is_over(1e9, 1.0)
