"""Insert-to-arrival latency at one message a second, through the whole gateway over TLS.

python -m bench.latency [--messages 60] [--interval 1.0]
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from bench.server import TOKEN, Server, stand_in
from tests.support.running import ControllerInbox, RunningGateway, message


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=60)
    parser.add_argument("--interval", type=float, default=1.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, stand_in(Path(name)) as server:
        gateway = RunningGateway(
            Path(name) / "g", server.host, server.port, TOKEN, TB_TLS="on", THINGSBOARD_CA_CERT=str(server.tls.ca_file)
        )
        inbox = ControllerInbox(gateway.inbox_path)
        with gateway:
            inbox.insert(message(0))
            server.wait(1, 20)
            time.sleep(2)
            latencies = sorted(_one(server, inbox, number, options.interval) for number in range(options.messages))
            assert gateway.stop() == 0
    p99 = latencies[min(len(latencies) - 1, int(len(latencies) * 0.99))]
    print(f"insert to arrival at {1 / options.interval:.1f}/s, {options.messages} messages:")
    print(
        f"p50 {statistics.median(latencies) * 1000:.1f} ms   p99 {p99 * 1000:.1f} ms   "
        f"max {latencies[-1] * 1000:.1f} ms"
    )


def _one(server: Server, inbox: ControllerInbox, number: int, interval_s: float) -> float:
    """Seconds from the commit of the insert until the stand-in has the record."""
    server.reset()
    inserted = time.monotonic()
    inbox.insert(message(number + 1))
    arrived, _ = server.wait(1, 10)
    time.sleep(max(0.0, interval_s - (time.monotonic() - inserted)))
    return arrived - inserted


if __name__ == "__main__":
    main()
