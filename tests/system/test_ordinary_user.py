"""The whole gateway as an ordinary user beside a hostile controller: the same promises, and what is lacking is said."""

import os
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.ordinary_user import UID, becoming_ordinary, directory_of_the_user, give
from tests.support.site import Site
from tests.system.test_hostile_inbox import attack_in_turn
from tests.unit.adapters.test_inbox_confinement import NAMES

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")

SAMPLE = ("view-without-end", "journal-names-another-file", "pipe-as-the-file", "link-as-the-file", "tree-without-end")


@pytest.fixture
def site() -> Iterator[Site]:
    with ThingsBoard(packet_log=0) as server, directory_of_the_user() as directory:
        site = Site(directory, server)
        give(directory)
        site.gateway.prefix = becoming_ordinary()
        with site.gateway, closing(site.inbox):
            site.device.wait_connected(30)
            yield site


def status(site: Site) -> dict[str, str]:
    assert site.gateway.process is not None
    lines = Path(f"/proc/{site.gateway.process.pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_an_ordinary_users_gateway_stands_the_same_attacks(site: Site) -> None:
    found = status(site)
    assert (set(found["Uid"].split()), found["CapPrm"], found["CapBnd"]) == ({str(UID)}, "0" * 16, "0" * 16)
    attack_in_turn(site, site.gateway.directory / "wires", SAMPLE, lambda: give(site.gateway.controller_path))
    assert site.gateway.stop() == 0


def test_every_layer_of_the_confinement_is_said_to_be_there_or_not(site: Site) -> None:
    site.record(10)
    site.wait_delivered()
    log = site.gateway.log()
    present = re.search(r"the inbox is read by a process confined by: (.*)", log)
    absent = re.search(r"not confined by: (.*)", log)
    assert present is not None, log
    said = present[1] + (absent[1] if absent else "")
    assert {name for name in NAMES if name in said} == NAMES, said
    assert site.gateway.stop() == 0
