"""The demo's arithmetic, its view and its child processes; the demo as a whole is in tests/system/test_demo.py."""

import io
import json
import math
import os
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from teg.simulator.demo import __main__ as demo
from teg.simulator.demo.account import Arrived, OnTheWay, Recorded, Snapshot, read_on_the_way, read_recorded
from teg.simulator.demo.blows import BLOWS, LEGEND
from teg.simulator.demo.children import MAX_LOG_BYTES, Child, ChildFailed, descendants
from teg.simulator.demo.environment import BOUND_TO_US, neutral_environment
from teg.simulator.demo.outlet import Outlet
from teg.simulator.demo.plain import PlainView, plain_line, what_it_did
from teg.simulator.demo.screen import MIN_HEIGHT, MIN_WIDTH, screen


def snapshot(recorded: dict[str, int], arrived: dict[str, int], duplicated: int = 0) -> Snapshot:
    return Snapshot(3.0, Recorded(1, recorded), OnTheWay(), Arrived(True, arrived, duplicated=duplicated))


class TestAccount:
    def test_everything_arrived(self) -> None:
        assert snapshot({"a": 3, "b": 2}, {"a": 3, "b": 2}).account() == (
            "account: recorded 5, delivered 5, lost 0, duplicated 0"
        )

    def test_the_gateway_s_own_telemetry_is_not_delivered_by_the_controller(self) -> None:
        now = snapshot({"a": 3}, {"a": 1, "ms_since_controller_startup": 40})
        assert (now.delivered, now.missing) == (1, 2)

    def test_a_surplus_in_one_key_does_not_hide_a_loss_in_another(self) -> None:
        assert snapshot({"a": 3, "b": 3}, {"a": 4, "b": 2}).missing == 1

    def test_a_key_that_never_arrived(self) -> None:
        assert snapshot({"a": 3, "b": 3}, {"a": 3}).account() == (
            "account: recorded 6, delivered 3, lost 3, duplicated 0"
        )

    def test_duplicates_are_told(self) -> None:
        assert "lost 0, duplicated 7" in snapshot({"a": 1}, {"a": 1}, duplicated=7).account()

    def test_is_settled_when_only_the_gateway_s_own_lines_are_on_the_way(self) -> None:
        now = snapshot({"a": 3}, {"a": 3})
        assert replace(now, on_the_way=OnTheWay(inbox=0, archive=2)).is_settled
        assert not replace(now, on_the_way=OnTheWay(inbox=1)).is_settled
        assert not snapshot({"a": 3}, {"a": 2}).is_settled

    def test_nothing_at_all(self) -> None:
        assert Snapshot(0.0).account() == "account: recorded 0, delivered 0, lost 0, duplicated 0"


class TestVerdict:
    def test_0_only_when_all_arrived(self, capsys: pytest.CaptureFixture[str]) -> None:
        outlet = Outlet(sys.stdout, lambda: None)
        assert demo.conclude(snapshot({"a": 1}, {"a": 1}), "survived: all", outlet) == 0
        assert demo.conclude(snapshot({"a": 2}, {"a": 1}), "", outlet) == 1
        assert demo.conclude(snapshot({}, {}), "", outlet) == 1  # a demo that measured nothing has shown nothing
        assert capsys.readouterr().out.count("account:") == 3

    def test_what_is_still_on_disk_is_said(self, capsys: pytest.CaptureFixture[str]) -> None:
        last = Snapshot(9.0, Recorded(3, {"a": 3}), OnTheWay(inbox=1, archive=2), Arrived(False, {}))
        assert demo.conclude(last, "", Outlet(sys.stdout, lambda: None)) == 1
        assert "3 records are safe on disk" in capsys.readouterr().out

    def test_the_first_arrival_is_told(self, capsys: pytest.CaptureFixture[str]) -> None:
        demo.conclude(Snapshot(9.0, first_arrival_s=1.84), "", Outlet(sys.stdout, lambda: None))
        assert "first arrival 1.8 s after the start" in capsys.readouterr().out


class TestCounters:
    def test_nothing_exists_yet(self, tmp_path: Path) -> None:
        assert read_recorded(tmp_path / "no.json") == Recorded()
        assert read_on_the_way(tmp_path / "no.db", tmp_path / "no either.db") == OnTheWay()
        assert list(tmp_path.iterdir()) == []

    def test_what_the_files_say(self, tmp_path: Path) -> None:
        (tmp_path / "account.json").write_text(json.dumps({"recorded": 5, "records": 3, "keys": {"a": 3, "b": 2}}))
        assert read_recorded(tmp_path / "account.json") == Recorded(3, {"a": 3, "b": 2})
        for name, script in {
            "inbox #1.db": "CREATE TABLE messages(id); INSERT INTO messages VALUES (1), (2);",
            "gateway.db": "CREATE TABLE outbox(lane, record_id); INSERT INTO outbox VALUES (0, 1);",
        }.items():
            with closing(sqlite3.connect(tmp_path / name)) as connection:
                connection.executescript(script)
        assert read_on_the_way(tmp_path / "inbox #1.db", tmp_path / "gateway.db") == OnTheWay(2, 1, 0)


FULL = Snapshot(
    12.34,
    Recorded(120, {"load_1m": 120, "cpu_percent": 119, "note [x]": 1}),
    OnTheWay(inbox=2, archive=3, set_aside=1),
    Arrived(True, {"load_1m": 118, "cpu_percent": 119, "note [x]": 1}, {"load_1m": 0.25, "note [x]": "[red]ok"}, 7, 55),
    first_arrival_s=1.9,
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def drawn(now: Snapshot, width: int = 100, events: Sequence[str] = (), height: int = 40) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(screen(now, events, LEGEND, width, height))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


class TestView:
    def test_a_plain_line_has_all_three_places(self) -> None:
        assert plain_line(FULL) == (
            " 12.3 s  recorded 240  on the way 2 (inbox 2, archive 3)  server 238  connected  load_1m=0.25"
        )
        assert plain_line(FULL).isascii()

    def test_plain_lines_come_once_a_second_and_when_the_phase_changes(self) -> None:
        stream = io.StringIO()
        with demo.opened_view(Outlet(stream, lambda: None), "xterm", "") as view:
            for elapsed_s, phase in [(0.0, "running"), (0.4, "running"), (1.1, "running"), (1.3, "draining")]:
                view.show(Snapshot(elapsed_s, phase=phase))
            view.say("the end")
        assert [line[:7].strip() for line in stream.getvalue().splitlines()] == ["0.0 s", "1.1 s", "1.3 s", "the end"]

    @pytest.mark.parametrize("width", [MIN_WIDTH, 80, 100, 160])
    @pytest.mark.parametrize("height", [MIN_HEIGHT, 24, 31, 60])
    def test_the_screen_fits_the_terminal_with_its_legend(self, width: int, height: int) -> None:
        keys = {f"temperature_sensor_{number}_c": 1_000_000 for number in range(100)}
        full = replace(FULL, recorded=Recorded(1, keys), arrived=Arrived(True, keys, keys), backlog=(0, 7, 30) * 20)
        lines = drawn(full, width, ["a blow " * 40] * 7, height).splitlines()
        assert len(lines) < height, "one line is left for the cursor"
        assert max(map(len, lines)) <= width
        assert "q account and end" in " ".join(" ".join(lines).replace("│", " ").split())

    def test_a_high_terminal_shows_events_and_values(self) -> None:
        text = drawn(FULL, 100, [f"event {number}" for number in range(20)])
        assert "event 19" in text and "event 11" in text and "event 10" not in text and "load_1m" in text

    def test_the_screen_has_all_three_places_and_the_newest_values(self) -> None:
        text = drawn(FULL)
        for part in ("240 recorded", "2 on the way", "238 stored", "inbox 2", "archive 3", "set aside 1", "0.25"):
            assert part in text
        for part in ("connected", "first after 1.9 s", "duplicated 7", "note [x]", "[red]ok", "Ctrl-C"):
            assert part in text

    def test_the_screen_before_anything_has_happened(self) -> None:
        text = drawn(Snapshot(0.0))
        assert "waiting for the first value" in text and "not connected" in text

    def test_the_backlog_is_a_curve_and_every_key_has_its_legend(self) -> None:
        text = drawn(replace(FULL, backlog=(0, 4, 8)), 220)
        assert "on the way, at most 8:  ▄█" in text
        assert all(f"{key} {blow.legend}" in text for key, blow in BLOWS.items())

    def test_the_last_frame_says_stopped_not_cut_off(self) -> None:
        last = replace(FULL, phase="stopped", arrived=replace(FULL.arrived, connected=False))
        assert "● stopped" in drawn(last) and "not connected" not in drawn(last)

    @pytest.mark.parametrize(
        ("line", "text"),
        [
            ("2026-11-24 14:08:40,123 WARNING gateway.session: the connection ended", "the connection ended"),
            ("2026-11-24 14:08:40,123 INFO    gateway: gateway started", "gateway started"),
            ("<4>gateway.session: the connection ended", "the connection ended"),
            ("Traceback (most recent call last):", ""),
        ],
    )
    def test_the_gateways_own_words_are_taken_from_its_log(self, line: str, text: str) -> None:
        assert what_it_did(line) == text

    def test_a_terminal_gets_the_screen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        stream = Terminal()
        monkeypatch.setenv("COLUMNS", "100")
        monkeypatch.setenv("LINES", "40")
        with demo.opened_view(Outlet(stream, lambda: None), "xterm", LEGEND) as view:
            view.show(FULL)
            view.say("a line that stays")
        assert "a line that stays" in stream.getvalue() and "240" in stream.getvalue()

    @pytest.mark.parametrize(("columns", "lines"), [(MIN_WIDTH - 1, 40), (100, MIN_HEIGHT - 1)])
    def test_a_terminal_that_is_too_small_gets_lines(
        self, columns: int, lines: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("LINES", str(lines))
        with demo.opened_view(Outlet(Terminal(), lambda: None), "xterm", LEGEND) as view:
            assert isinstance(view, PlainView)

    def test_a_terminal_that_can_do_nothing_gets_lines_and_is_told_the_keys(self) -> None:
        stream = Terminal()
        with demo.opened_view(Outlet(stream, lambda: None), "dumb", LEGEND) as view:
            assert isinstance(view, PlainView)
        assert "k kill -9 the gateway, " in stream.getvalue() and stream.getvalue().isascii()

    def test_an_output_that_goes_away_ends_the_demo_without_an_error(self) -> None:
        class Closed(io.StringIO):
            def write(self, _text: str) -> int:
                raise BrokenPipeError

        gone: list[bool] = []
        outlet = Outlet(Closed(), lambda: gone.append(True))
        PlainView(outlet.as_text).say("to nobody")
        PlainView(outlet.as_text).say("to nobody")
        assert gone == [True]


class TestDuration:
    @pytest.mark.parametrize(("text", "seconds"), [("8", 8.0), (" 2.5 ", 2.5), ("", math.inf)])
    def test_is_seconds_or_endless(self, text: str, seconds: float) -> None:
        assert demo.duration({"DEMO_SECONDS": text}) == seconds
        assert demo.duration({}) == math.inf

    @pytest.mark.parametrize("text", ["0", "-1", "ten", "1e3", "inf", "nan"])
    def test_anything_else_is_said(self, text: str) -> None:
        with pytest.raises(demo.BadDuration, match="DEMO_SECONDS"):
            demo.duration({"DEMO_SECONDS": text})


class TestStopRequests:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_are_an_event_not_an_exception(self, number: signal.Signals) -> None:
        before = signal.getsignal(number)
        with demo.stop_requests() as stop:
            signal.raise_signal(number)
            assert stop.wait(5)
        assert signal.getsignal(number) is before


@pytest.fixture
def child(tmp_path: Path) -> Iterator["Starter"]:
    starter = Starter(tmp_path)
    yield starter
    for started in starter.started:
        started.stop(0.1)


class Starter:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.started: list[Child] = []

    def __call__(self, code: str) -> Child:
        child = Child("child", [sys.executable, "-c", code], {}, self._directory, self._directory)
        self.started.append(child)
        return child


def wait_for_text(path: Path, text: str) -> None:
    deadline = time.monotonic() + 20
    while not (path.exists() and text in path.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_for_death(child: Child) -> ChildFailed:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            child.check()
        except ChildFailed as death:
            return death
        time.sleep(0.01)
    raise AssertionError("it lives on")


class TestChildren:
    def test_a_death_comes_with_the_last_lines(self, child: "Starter") -> None:
        code = "import sys; [print(n, file=sys.stderr) for n in range(100)]; sys.exit(3)"
        death = str(wait_for_death(child(code)))
        assert "child ended by itself with status 3" in death
        assert "    99" in death and "    84" not in death

    def test_a_death_shows_what_it_printed(self, child: "Starter") -> None:
        assert "    out" in str(wait_for_death(child("print('out')")))

    def test_stopping_is_graceful_and_harmless_twice(self, child: "Starter", tmp_path: Path) -> None:
        started = child(
            "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
            "print('ready', flush=True); time.sleep(600)"
        )
        wait_for_text(tmp_path / "child.log", "ready")
        assert started.stop() == 0
        assert started.stop() == 0

    def test_a_child_that_will_not_stop_is_killed(self, child: "Starter", tmp_path: Path) -> None:
        started = child(
            "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
            "print('ready', flush=True); time.sleep(600)"
        )
        wait_for_text(tmp_path / "child.log", "ready")
        assert started.stop(0.2) == -signal.SIGKILL

    def test_ctrl_c_does_not_reach_it(self, child: "Starter") -> None:
        started = child("import os; print(os.getpgrp() == os.getpid(), flush=True)")
        wait_for_death(started)
        assert started.last_lines() == "    True"

    def test_its_log_does_not_grow_for_ever(self, child: "Starter", tmp_path: Path) -> None:
        wait_for_death(child("for number in range(60_000): print('a line of the gateway', number, 'x' * 60)"))
        assert {path.name for path in tmp_path.iterdir()} == {"child.log", "child.log.1"}
        assert all(path.stat().st_size <= MAX_LOG_BYTES for path in tmp_path.iterdir())
        assert (tmp_path / "child.log").read_text().splitlines()[-1].startswith("a line of the gateway 59999 ")

    def test_what_it_started_is_found_however_deep(self, child: "Starter", tmp_path: Path) -> None:
        sleeper = "import time; print('ready', flush=True); time.sleep(600)"
        started = child(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {sleeper!r}])")
        wait_for_text(tmp_path / "child.log", "ready")
        [grandchild] = descendants(started.pid)
        assert Path(f"/proc/{grandchild}/cmdline").read_bytes().endswith(sleeper.encode() + b"\0")
        os.kill(grandchild, signal.SIGKILL)
        wait_for_death(started)
        assert descendants(started.pid) == []

    def test_it_is_told_to_stop_when_the_one_that_started_it_is_killed(self, child: "Starter", tmp_path: Path) -> None:
        sleeper = (
            "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('told', flush=True)))\n"
            "print('ready', flush=True); time.sleep(600)"
        )
        command = [*map(str, BOUND_TO_US[1:]), "PARENT", sys.executable, "-c", sleeper]
        parent = (
            f"import os, subprocess, sys; command = {command!r}; command[command.index('PARENT')] = str(os.getpid())\n"
            "subprocess.run([sys.executable, *command])"
        )
        started = child(parent)
        wait_for_text(tmp_path / "child.log", "ready")
        started.kill()
        wait_for_text(tmp_path / "child.log", "told")


class TestFailures:
    def test_a_missing_virtual_environment_is_said(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(demo, "GATEWAY_COMMAND", (tmp_path / "huey_consumer", "gateway.huey"))
        monkeypatch.setattr(tempfile, "mkdtemp", lambda prefix: str(tmp_path))
        monkeypatch.delenv("DEMO_SECONDS", raising=False)
        assert demo.main() == 1
        assert "make setup" in capsys.readouterr().out

    def test_what_may_explain_a_failure_is_kept(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        directory = tmp_path / "demo"
        (directory / "logs").mkdir(parents=True)
        demo.clear(directory, 1)
        assert f"everything is kept in {directory}" in capsys.readouterr().out
        demo.clear(directory, 0)
        assert not directory.exists()


def test_the_users_own_settings_do_not_reach_the_demo(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# mine\nexport TB_TLS=off\nTEG_QUEUE_URL = redis://x\nPATH=/evil\n")
    environment = neutral_environment({"TB_HOST": "real.example", "PATH": "/bin", "LANG": "C"}, tmp_path / ".env")
    assert environment == {
        "TB_HOST": "",
        "TB_TLS": "",
        "TEG_QUEUE_URL": "",
        "PATH": "/bin",
        "LANG": "C",
    }
