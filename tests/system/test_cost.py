"""What a gateway costs at rest and with few messages, by counts that do not depend on how fast the machine is."""

import shutil
import time
from collections import Counter
from pathlib import Path

import pytest

from bench.cost import feed, settle, traced
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.running import ControllerInbox, RunningGateway

REST_S = 5.0
MESSAGES, PER_S = 40, 10


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_at_rest_it_sleeps_and_writes_nothing_and_fast_messages_share_their_commits(tmp_path: Path) -> None:
    with ThingsBoard() as server:
        device = server.add_device("pi", token="T1")
        gateway = RunningGateway(tmp_path, server.host, server.port, "T1")
        inbox = ControllerInbox(gateway.inbox_path)
        with gateway:
            device.wait_for(lambda it: it.connected, 30, "connected")
            assert gateway.process is not None
            pid = gateway.process.pid
            settle(pid)
            with traced(pid, tmp_path / "rest", gateway.data_path) as rest:
                time.sleep(REST_S)
            with traced(pid, tmp_path / "fast", gateway.data_path) as fast:
                feed(inbox, 1, MESSAGES, PER_S)
                device.wait_for(lambda it: len(it.records()) >= MESSAGES, 30, "all records")
        inbox.close()
    assert rest.written == [], "not one call"
    assert rest.timeouts <= 2 * REST_S, "7 in each run when this was written: waits that end because their time is up"
    assert fast.fsyncs <= 22, "20 in each run: a commit for each until the rate is known, then one for three"
    wrote = Counter(Path(file).name for file in fast.written)
    assert wrote.pop("gateway.db-wal") <= 240, "218 in each run: two calls a page"
    assert wrote.pop("huey.db-wal", 0) <= 20, "16 in each run: the two drainers are started through the queue, once"
    assert not wrote
