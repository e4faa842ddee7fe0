"""The change-over from the reference in the middle of everything, twice in a row: nothing lost, each archived once."""

import os
import random
import time
from pathlib import Path

import pytest

from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.fault_site import FaultSite, settle
from tests.support.legacy import Reference
from tests.support.running import ControllerInbox, message

START_MS = 1_767_225_600_000


class ChangeOver:
    """What the reference leaves: rows that it archived and still had to send, and the controller's inbox behind it."""

    def __init__(self, site: FaultSite) -> None:
        self.site = site
        self._next = 1

    def leave(self, waiting: int, inbox: int) -> None:
        """In files made anew, so with row numbers that begin anew, too."""
        site = self.site
        site.inbox.close()
        places = (site.gateway.data_path / "gateway_archive.db", site.gateway.data_path / "gateway_logs_buffer.db")
        for path in (site.inbox.path, *places):
            for suffix in ("", "-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
        reference = Reference(site.gateway.data_path, site.inbox.path)
        for connection in (reference.archive, reference.inbox):
            connection.execute("BEGIN")
        for number in range(self._next, self._next + waiting):
            reference.archived(number)
            reference.queued(number)
        for connection in (reference.archive, reference.inbox):
            connection.execute("COMMIT")
        reference.close()
        site.inbox = ControllerInbox(site.inbox.path)
        first, self._next = self._next + waiting, self._next + waiting + inbox
        site.inbox.insert_many(message(number, START_MS) for number in range(first, self._next))

    def expect_all(self) -> None:
        """The producer's ledger, written at once: nothing was produced meanwhile."""
        self.site.ledger.seek(0)
        self.site.ledger.truncate()
        self.site.ledger.write(b"".join(b"%d\n" % number for number in range(1, self._next)))
        self.site.ledger.flush()


def change_over_twice(path: Path, waiting: int, inbox: int, kills: int) -> None:
    seed = int(os.environ.get("TEG_TORTURE_SEED", time.time_ns() % 1_000_000))
    print(f"seed {seed}")
    moments = random.Random(seed)
    with ThingsBoard(packet_log=0) as server:
        site = FaultSite(path, server)
        change = ChangeOver(site)
        try:
            for _ in range(2):
                change.leave(waiting, inbox)
                change.expect_all()
                for _ in range(kills):
                    server.faults.puback_delay_s = moments.uniform(0.05, 0.5)
                    site.gateway.start()
                    site.wait_up()
                    settle(moments.uniform(0.2, 2.0))
                    site.gateway.kill()
                site.gateway.start()
                site.wait_up()
                site.wait_settled(300)
                site.assert_exact()
                assert site.gateway.stop() == 0
            again = site.device.duplicates
            print(f"2 x ({waiting} waiting, {inbox} in the inbox, {kills} kills): 0 lost; {again} values came again")
        finally:
            site.close()


def test_a_small_change_over(tmp_path: Path) -> None:
    change_over_twice(tmp_path, 300, 600, 1)


@pytest.mark.torture
@pytest.mark.timeout(0)
def test_a_change_over_with_kills(tmp_path: Path) -> None:
    change_over_twice(tmp_path, 5000, 20_000, 6)
