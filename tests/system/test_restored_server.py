"""What a server forgot of what it was told, it is told again: by a real gateway, after its next connect."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.running import wait_until
from tests.support.site import Site, running_site


@pytest.fixture
def server() -> Iterator[ThingsBoard]:
    with ThingsBoard(packet_log=0) as server:
        yield server


@pytest.fixture
def site(tmp_path: Path, server: ThingsBoard) -> Iterator[Site]:
    with running_site(tmp_path, server, TEG_CONTROLLER_RUNTIME="process", TEG_CONTROLLER_COMMAND="true") as site:
        yield site


def failures(site: Site) -> int:
    """How many different ones the server has been told, ever."""
    return len({ts for ts, values in site.device.records() if values.get("sw_state") == "FAILED"})


def test_a_restored_server_hears_how_the_last_update_ended(site: Site, server: ThingsBoard) -> None:
    backup = server.backup()
    site.record(10)
    site.device.assign_software("controller", "$(reboot)")
    site.device.wait_for(lambda _: failures(site) == 1, 60, "the refusal is told")
    wait_until(lambda: site.counters().get("stored", 0) == 10, 60, "the rows are proven")
    server.restore(backup)
    site.device.wait_for(lambda _: failures(site) == 2, 60, "the refusal is told again")


def test_a_client_attribute_that_changed_on_the_server_is_told_again_after_a_reconnect(site: Site) -> None:
    """One that the gateway tells only when it changes."""
    site.device.set_shared({"FILES": "nonsense"})
    site.device.wait_for(lambda device: device.client_attributes.get("FILES_ERROR"), 60, "it is told")
    told = site.device.client_attributes["FILES_ERROR"]
    site.device.set_client({"FILES_ERROR": "something else"})
    site.device.kick()
    site.device.wait_for(lambda device: device.client_attributes["FILES_ERROR"] == told, 60, "it is told again")
