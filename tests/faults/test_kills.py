"""kill -9 again and again while rows come in and go out: none lost, and the archive has each exactly once."""

import os
import random
import time
from pathlib import Path

import pytest

from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.fault_site import FaultSite, settle


@pytest.mark.torture
@pytest.mark.timeout(0)
def test_ten_thousand_records_and_two_hundred_kills(tmp_path: Path) -> None:
    kills = int(os.environ.get("TEG_TORTURE_KILLS", "200"))
    seed = int(os.environ.get("TEG_TORTURE_SEED", time.time_ns() % 1_000_000))
    print(f"seed {seed}")
    moments = random.Random(seed)
    with ThingsBoard(packet_log=0) as server:
        server.faults.puback_delay_s = 0.05
        site = FaultSite(tmp_path, server)
        for _ in range(kills):
            site.gateway.start()
            site.produce(10_000 // kills)
            settle(moments.uniform(0.2, 1.6))
            site.gateway.kill()
        server.faults.clear()
        site.gateway.start()
        site.wait_up()
        site.wait_settled(180)
        site.assert_exact()
        again = site.device.duplicates
        print(f"{len(site.produced())} records, {kills} kills, 0 lost; {again / kills} values a kill came again")
        assert site.gateway.stop() == 0
        site.close()
