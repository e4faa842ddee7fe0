"""A real gateway whose own files are taken away under it: the producer's account, the server and the archive agree."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.archives import AT_THE_NAMES
from tests.support.fault_site import FaultSite, write_locked
from tests.support.running import remove_tree, wait_until


@pytest.fixture
def server() -> Iterator[ThingsBoard]:
    with ThingsBoard(packet_log=0) as server:
        yield server


@pytest.fixture
def site(tmp_path: Path, server: ThingsBoard) -> Iterator[FaultSite]:
    site = FaultSite(tmp_path, server)
    yield site
    site.close()


@pytest.mark.parametrize("name", ["database moved away", "database replaced by an older one", "all removed"])
def test_the_next_life_has_every_row(site: FaultSite, server: ThingsBoard, name: str) -> None:
    """Before this was watched, 400 of 400 rows left the inbox for a file that nobody would open again."""
    what: Callable[[Path], object] = AT_THE_NAMES[name]
    site.gateway.start()
    site.produce(100)
    site.wait_settled()
    server.stop_listening()
    site.produce(200)
    wait_until(lambda: site.inbox.count() == 0, 60, "archived")
    what(site.database)
    site.produce(200)
    wait_until(lambda: site.inbox.count() == 0, 60, "archived")
    site.gateway.kill()
    site.gateway.start()
    server.start_listening()
    site.wait_settled()
    site.assert_exact()
    assert "gateway.db" in site.gateway.log()


def test_a_damaged_page_stops_nothing(site: FaultSite, server: ThingsBoard) -> None:
    """Before, one bad page of the outbox stopped telemetry for ever, without a line in the log."""
    server.stop_listening()
    site.gateway.start()
    site.produce(3000)
    wait_until(lambda: site.inbox.count() == 0, 60, "archived")
    assert site.gateway.stop() == 0
    [(page,)] = site.gateway.rows("SELECT rootpage FROM sqlite_master WHERE name = 'outbox'")
    with site.database.open("r+b") as file:
        file.seek((int(str(page)) - 1) * 1024)
        file.write(b"\xa5" * 1024)
    server.start_listening()
    site.gateway.start()
    site.produce(100)
    site.wait_settled()
    site.assert_exact()
    site.gateway.wait_log("were brought back")


@pytest.mark.slow
def test_a_start_without_storage_connects_answers_and_obeys(site: FaultSite) -> None:
    site.gateway.start()
    site.produce(10)
    site.wait_settled()
    assert site.gateway.stop() == 0
    with write_locked(site.database):
        site.gateway.start()
        site.device.wait_connected(60)
        assert site.device.rpc("ping", timeout_s=10).response is not None
        site.produce(100)
        assert site.gateway.stop() == 0, "SIGTERM is obeyed while the storage waits"
        site.gateway.start()
        site.gateway.wait_log("going on without the archive", 60)
    site.wait_settled()
    site.assert_exact()


def test_a_deleted_data_directory_is_made_anew(site: FaultSite, server: ThingsBoard) -> None:
    site.gateway.start()
    site.produce(50)
    site.wait_settled()
    server.stop_listening()
    site.produce(100)
    wait_until(lambda: site.inbox.count() == 0, 60, "archived")
    remove_tree(site.gateway.data_path)
    site.produce(100)
    wait_until(lambda: site.inbox.count() == 0, 60, "archived")
    server.start_listening()
    site.wait_settled()
    site.assert_exact()
