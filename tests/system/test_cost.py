"""What a gateway costs at rest and with few messages, by counts that do not depend on how fast the machine is."""

import shutil
import time
from pathlib import Path

import pytest

from bench.cost import SETTLED_S, feed, fsyncs, total
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.running import ControllerInbox, RunningGateway, message

REST_S = 8.0


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_at_rest_it_sleeps_and_writes_nothing_and_fast_messages_share_their_commits(tmp_path: Path) -> None:
    with ThingsBoard() as server:
        device = server.add_device("pi", token="T1")
        gateway = RunningGateway(tmp_path, server.host, server.port, "T1")
        inbox = ControllerInbox(gateway.inbox_path)
        with gateway:
            inbox.insert(message(0))
            device.wait_for(lambda it: len(it.records()) > 0, 30, "the first record")
            assert gateway.process is not None
            pid = gateway.process.pid
            time.sleep(SETTLED_S)
            before = total(pid)
            time.sleep(REST_S)
            rest = total(pid).since(before)
            with fsyncs(pid, tmp_path / "trace") as synced:
                feed(inbox, 1, 60, per_s=10)
        inbox.close()
    assert rest.written_bytes <= 8192, "none or one page when this was written, 13 kB in 30 s before"
    assert rest.wakeups / REST_S <= 6.0, "2.4 to 3.8 when this was written, 22 before; threads that meet add some"
    assert synced[0] <= 0.6 * 60, "0.35 a message when this was written, 1.9 before, and a start of some"
