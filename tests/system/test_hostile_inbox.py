"""A real gateway beside a controller that attacks it through the inbox: it answers, grows no fat, and goes on."""

import os
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from teg.simulator.thingsboard.server import ThingsBoard
from tests.support import hostile_inboxes as hostile
from tests.support.running import ControllerInbox, message, wait_until
from tests.support.site import Site, running_site

#: One of each class; all of them meet the reader in test_hostile_inbox_reader.py.
SAMPLE = (
    "view-without-end",
    "virtual-heartbeat-over-endless-view",
    "partial-index",
    "row-of-fifty-megabytes",
    "keys-by-the-thousand",
    "lie-newline-in-sql",
    "random-damage-1",
    "journal-names-another-file",
    "pipe-as-journal",
    "pipe-as-the-file",
    "link-as-the-file",
    "directory-as-the-file",
    "terabyte-of-nothing",
)

#: Odd, but rows that can be dealt with.
FLOWING = ("row-of-fifty-megabytes", "keys-by-the-thousand")


@pytest.fixture
def server() -> Iterator[ThingsBoard]:
    with ThingsBoard(packet_log=0) as server:
        yield server


@pytest.fixture
def site(tmp_path: Path, server: ThingsBoard) -> Iterator[Site]:
    with running_site(tmp_path, server) as site:
        yield site


def peak_kb(site: Site) -> int:
    assert site.gateway.process is not None
    status = Path(f"/proc/{site.gateway.process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


def readers(site: Site) -> list[int]:
    """The processes that the gateway has as children."""
    assert site.gateway.process is not None
    pid = site.gateway.process.pid
    threads = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for thread in threads for child in (thread / "children").read_text().split()]


def troubles(site: Site) -> int:
    return site.gateway.log().count("the inbox cannot be read now")


def ended(site: Site) -> int:
    return site.gateway.log().count("the inbox can be read again")


def emptied(place: Path) -> None:
    shutil.rmtree(place)
    place.mkdir()


@pytest.mark.slow
def test_the_gateway_answers_and_good_files_flow(tmp_path: Path, site: Site) -> None:
    attack_in_turn(site, tmp_path / "wires", SAMPLE)
    assert site.gateway.stop() == 0


def attack_in_turn(site: Site, wires: Path, sample: Iterable[str], made: Callable[[], None] = lambda: None) -> None:
    """Each is said, `ping` is answered meanwhile, a good file flows after it; `made` is called when files were made."""
    place = site.gateway.controller_path
    wires.mkdir()
    with closing(ControllerInbox(wires / "other.db")) as other:
        other.insert("another program's")
    kept = {path.name: path.read_bytes() for path in wires.iterdir()}
    site.record(100)
    site.wait_delivered()
    site.inbox.close()
    before_kb = peak_kb(site)
    said = 0
    for number, name in enumerate(sample, 1):
        emptied(place)
        hostile.plant(name, place, wires)
        made()
        if name not in FLOWING:  # the heartbeat is read every 20 s, and a request may take 8 s
            wait_until(lambda: troubles(site) > said, 60, f"{name} is said")  # noqa: B023 - waited for here
        assert site.device.rpc("ping", timeout_s=5.0).response == {"message": "Pong"}
        emptied(place)
        with closing(ControllerInbox(place / hostile.NAME)) as good:
            good.insert(message(1000 + number))
            made()
            wait_until(lambda good=good: good.count() == 0, 60, f"a good file flows after {name}")  # type: ignore[misc]
        said = troubles(site)  # the next one is news when this trouble is over
        wait_until(lambda: ended(site) == troubles(site), 30, f"the trouble with {name} is over")
    assert {path.name: path.read_bytes() for path in wires.iterdir()} == kept
    assert peak_kb(site) - before_kb < 60_000
    assert "\n2026 ERROR forged" not in site.gateway.log()


def test_a_reader_that_hangs_is_killed_and_a_stop_does_not_wait_for_it(site: Site) -> None:
    site.record(10)
    site.wait_delivered()
    site.inbox.close()
    emptied(site.gateway.controller_path)
    path = site.gateway.controller_path / hostile.NAME
    spare = path.with_name("spare")
    ControllerInbox(spare).close()
    with hostile.leased(spare):
        spare.rename(path)
        site.gateway.wait_log("no answer within 8 s; the reader was killed", 30)
        assert site.device.rpc("ping", timeout_s=5.0).response == {"message": "Pong"}
        assert site.gateway.stop() == 0


def test_a_reader_that_dies_is_started_anew_and_nothing_is_lost(site: Site) -> None:
    site.record(10)
    site.wait_delivered()
    for _ in range(3):
        for pid in readers(site):
            os.kill(pid, signal.SIGKILL)
        site.record(50)
        site.wait_delivered()
    site.assert_nothing_lost()
    assert site.gateway.stop() == 0


def test_the_reader_has_nothing_of_the_gateway(site: Site) -> None:
    site.record(10)
    site.wait_delivered()
    wait_until(lambda: len(readers(site)) == 1, 30, "the look for an earlier gateway's files is over")
    [pid] = readers(site)
    process = Path(f"/proc/{pid}")
    assert (process / "environ").read_bytes() == b""
    assert b"T1" not in (process / "cmdline").read_bytes()
    opened = {str(fd.readlink()) for fd in (process / "fd").iterdir()}
    inbox = str(site.gateway.inbox_path)
    assert {name for name in opened if not name.startswith("socket:")} <= {
        "/dev/null",
        inbox,
        f"{inbox}-wal",
        f"{inbox}-shm",
    }
    status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
    assert (status["NoNewPrivs"], status["Seccomp"], status["CapEff"]) == ("1", "2", "0" * 16)
    assert {path.name for path in (process / "root").iterdir()} == {
        path.name for path in site.gateway.controller_path.iterdir()
    }
    assert site.gateway.stop() == 0
    assert not process.exists()
