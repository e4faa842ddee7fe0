"""Things that nobody listed, done to a real gateway between two halves of its work: nothing is lost, nothing stands."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.fault_site import FaultSite, settle, write_locked
from tests.support.running import wait_until


def moved(path: Path) -> Path:
    return path.rename(path.with_name(path.name + ".by-hand"))


def a_directory(path: Path) -> None:
    moved(path)
    path.mkdir()


def a_full_directory(path: Path) -> None:
    a_directory(path)
    (path / "somebody's").write_text("file")


def a_link(path: Path) -> None:
    path.symlink_to(moved(path))


def a_dangling_link(path: Path) -> None:
    moved(path)
    path.symlink_to("/nowhere")


def a_fifo(path: Path) -> None:
    moved(path)
    os.mkfifo(path)


def a_copy(path: Path) -> None:
    shutil.copy(moved(path), path)


def nothing_in_it(path: Path) -> None:
    os.truncate(path, 0)


def half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def no_rights(path: Path) -> None:
    path.chmod(0)


def noise(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(os.urandom(4096))


def longer(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0" * 5000)


def gone(path: Path) -> None:
    path.unlink()


def a_tree_gone(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)  # the gateway may make a file in it at the same moment


KINDS = (a_directory, a_full_directory, a_link, a_dangling_link, a_fifo, a_copy, no_rights, noise, longer, gone)
CUTS = (nothing_in_it, half)
#: A -wal that is cut or written over is left out here: what was only there may be gone from the disk.
DONE_TO = {
    "gateway.db": (*KINDS, *CUTS),
    "gateway.db-shm": KINDS,
    "gateway.db-wal": (a_directory, a_link, a_fifo, a_copy, no_rights, longer, gone),
    "gateway.db.marker": (*KINDS, *CUTS),
    "gateway.lock": (gone,),  # anything else in its place is refused, with the reason
    "gateway.db.ballast": (a_directory, a_link, a_fifo, gone),
    "huey_data/huey.db": (*KINDS, *CUTS),
    "huey_data/huey.db-wal": (*KINDS, *CUTS),
    "huey_data": (a_tree_gone, moved),
}
CASES = [(name, what) for name, kinds in DONE_TO.items() for what in kinds]


@pytest.fixture
def server() -> Iterator[ThingsBoard]:
    with ThingsBoard(packet_log=0) as server:
        yield server


@pytest.fixture
def site(tmp_path: Path, server: ThingsBoard) -> Iterator[FaultSite]:
    site = FaultSite(tmp_path, server)
    site.gateway.environment["TEG_QUEUE_URL"] = f"sqlite://{site.gateway.data_path}/huey_data/huey.db"
    yield site
    site.close()


def archived(site: FaultSite) -> None:
    wait_until(lambda: site.inbox.count() == 0, 60, "archived")


#: With the other tests; all of them with `make torture`.
SAMPLE = (("gateway.db", a_directory), ("gateway.db.marker", a_fifo), ("huey_data/huey.db-wal", a_full_directory))


def named(case: object) -> str:
    return case if isinstance(case, str) else getattr(case, "__name__", "")


@pytest.mark.parametrize(("name", "what"), SAMPLE, ids=named)
def test_a_sample_between_two_halves(
    site: FaultSite, server: ThingsBoard, name: str, what: Callable[[Path], object]
) -> None:
    between_two_halves(site, server, name, what)


@pytest.mark.torture
@pytest.mark.parametrize(("name", "what"), CASES, ids=named)
def test_between_two_halves(site: FaultSite, server: ThingsBoard, name: str, what: Callable[[Path], object]) -> None:
    between_two_halves(site, server, name, what)


def between_two_halves(site: FaultSite, server: ThingsBoard, name: str, what: Callable[[Path], object]) -> None:
    site.gateway.start()
    site.produce(100)
    site.wait_settled()
    server.stop_listening()
    site.produce(200)
    archived(site)
    wait_until((site.gateway.data_path / name).exists, 10, "there is such a file")
    what(site.gateway.data_path / name)
    site.produce(200)
    archived(site)
    site.gateway.kill()
    site.gateway.start()
    server.start_listening()
    site.produce(50)
    site.wait_settled()
    site.assert_exact()


@contextmanager
def mounted(path: Path, *arguments: str) -> Iterator[Path]:
    path.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", *arguments, str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.parametrize("when", ["at the start", "meanwhile"])
def test_a_disk_that_is_full(site: FaultSite, server: ThingsBoard, when: str) -> None:
    with ExitStack() as stack:
        stack.enter_context(mounted(site.gateway.data_path, "-t", "tmpfs", "-o", "size=40m", "tmpfs"))
        stack.callback(site.gateway.kill)
        filler = site.gateway.data_path / "somebody else's"
        if when == "meanwhile":
            site.gateway.start()
            site.produce(100)
            site.wait_settled()
        with filler.open("wb") as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(b"\0" * 65536)
                file.flush()
        if when == "at the start":
            site.gateway.start()
        site.produce(5000)
        site.device.wait_connected(60)
        assert site.device.rpc("ping", timeout_s=20).response is not None
        settle(5)
        assert site.gateway.process is not None and site.gateway.process.poll() is None
        filler.unlink()
        site.wait_settled()
        site.assert_exact()
        assert site.gateway.stop() == 0


@pytest.mark.torture
def test_a_stop_while_another_program_holds_the_archive(site: FaultSite) -> None:
    """It waits for the lock neither in its workers nor at the closing, and ends as every other stop."""
    site.gateway.start()
    site.produce(100)
    site.wait_settled()
    with write_locked(site.database):
        site.produce(100)
        settle(1)
        assert site.gateway.stop() == 0
    site.gateway.start()
    site.wait_settled()
    site.assert_exact()
