"""`teg torture`: it ends with 0 when nothing was lost, and with 1 and everything kept when something was."""

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from teg.console.main import main
from teg.simulator.torture import run
from teg.simulator.torture.books import Account
from teg.simulator.torture.run import Report, fsync_text

GOOD = Account(
    recorded=10,
    on_server=10,
    lost=0,
    doubled=0,
    inbox=0,
    accepted=10,
    delivered=10,
    pending=0,
    held=0,
    set_aside=0,
    evicted=0,
    counted_lost=0,
    again=3,
)
BAD = {
    "2 records are lost": replace(GOOD, on_server=8, lost=2),
    "1 records were archived twice": replace(GOOD, doubled=1),
    "5 records are stuck": replace(GOOD, delivered=7, pending=3, inbox=2),
    "1 records were evicted": replace(GOOD, delivered=9, evicted=1),
    "1 records are counted as lost": replace(GOOD, delivered=9, counted_lost=1),
    "the account of the gateway is not exact": replace(GOOD, accepted=11),
}


def test_nothing_lost_is_no_trouble() -> None:
    assert Report(GOOD, {}, []).verdict == ""


@pytest.mark.parametrize("text", BAD)
def test_each_trouble_is_named(text: str) -> None:
    assert text in Report(BAD[text], {}, []).verdict


def test_what_is_lost_ends_with_1_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "torture", lambda *_: Report(BAD["2 records are lost"], {"kill -9": 1}, [0.1, 0.2]))
    found = CliRunner().invoke(main, ["torture", "--seed", "7", "--directory", str(tmp_path / "here")])
    assert found.exit_code == 1
    assert "2 records are lost" in found.output
    assert "teg torture --seed 7" in found.output
    assert (tmp_path / "here" / "recorded").exists()


def test_a_directory_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "gateway.db").write_bytes(b"mine")
    found = CliRunner().invoke(main, ["torture", "--directory", str(tmp_path)])
    assert found.exit_code == 1
    assert "is not empty" in found.output
    assert [path.name for path in tmp_path.iterdir()] == ["gateway.db"]


@pytest.mark.timeout(300)
def test_some_seconds_of_it_beside_a_gateways_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default below the data directory, where nothing else is touched and nothing is left."""
    (tmp_path / "gateway.db").write_bytes(b"a running gateway's")
    monkeypatch.setenv("TEG_DATA_PATH", str(tmp_path))
    found = CliRunner().invoke(main, ["torture", "--seconds", "3"])
    assert found.exit_code == 0, found.output
    assert "verdict: nothing is lost" in found.output
    assert "fsync: median" in found.output
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["gateway.db", "torture"]
    assert (tmp_path / "gateway.db").read_bytes() == b"a running gateway's"


def test_fsync_figures() -> None:
    assert fsync_text([0.001] * 99 + [0.5]) == "median 1.0 ms, 99 % within 6.0 ms, longest 500.0 ms, of 100"
