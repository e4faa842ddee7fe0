"""A million records, 200 reconnects: memory, threads and descriptors are as after the first 10,000 records, and the log
is as long as between two checkpoints."""

import os
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from teg.adapters.gateway_db.database import CHECKPOINT_PAGES
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.fault_site import FaultSite
from tests.support.running import wait_until

FIRST = 10_000
BATCH = 1000
#: The producer waits while so many are on their way.
AHEAD = 5 * BATCH


@dataclass(frozen=True, slots=True)
class Use:
    rss_kb: int
    threads: int
    descriptors: int
    log_bytes: int

    @classmethod
    def of(cls, site: FaultSite) -> "Use":
        assert site.gateway.process is not None
        process = Path(f"/proc/{site.gateway.process.pid}")
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        log = site.database.with_name("gateway.db-wal")
        return cls(
            int(status["VmRSS"].split()[0]),
            int(status["Threads"]),
            len(list((process / "fd").iterdir())),
            log.stat().st_size,
        )


def on_the_way(site: FaultSite) -> int:
    return site.inbox.count() + site.pending()


@pytest.mark.torture
@pytest.mark.timeout(0)
def test_a_million_records_and_two_hundred_reconnects(tmp_path: Path) -> None:
    records = int(os.environ.get("TEG_TORTURE_RECORDS", "1000000"))
    every = max(BATCH, (records - FIRST) // 200)
    with ThingsBoard(packet_log=0) as server, closing(FaultSite(tmp_path, server)) as site:
        site.gateway.start()
        site.wait_up()
        reconnects = 0
        for done in range(BATCH, records + 1, BATCH):
            site.produce(BATCH)
            wait_until(lambda: on_the_way(site) < AHEAD, 120, "the gateway keeps up")
            if done == FIRST:
                wait_until(lambda: on_the_way(site) == 0, 120, "all delivered")
                before = Use.of(site)
            elif done > FIRST and (done - FIRST) // every > reconnects:
                reconnects += 1
                server.reset_connections()
        site.wait_settled(300)
        after = Use.of(site)
        print(f"{records} records, {reconnects} reconnects: {before} -> {after}")
        site.assert_exact()
        assert after.log_bytes <= 2 * CHECKPOINT_PAGES * 1048
        for name in ("threads", "descriptors", "rss_kb"):
            assert getattr(after, name) <= getattr(before, name) * 1.1, name
        assert site.gateway.stop() == 0
