"""The gateway beside other ways to ThingsBoard: records a second of a backlog to one server, in turns, without TLS.

python -m bench.side_by_side [--rows 5000] [--rounds 3]      (after `make .venv-clients/.ready`)

What each promises about loss belongs to it: docs/performance.md.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.other_clients import mosquitto_bridge, tb_mqtt_client, thingsboard_gateway
from bench.records import fill
from bench.server import TOKEN, Server, stand_in
from tests.support.running import RunningGateway


def gateway(directory: Path, server: Server, rows: int) -> float:
    """From the move of a filled inbox to the last arrival."""
    running = RunningGateway(directory / "g", server.host, server.port, TOKEN)
    fill(directory / "filled.db", rows)
    with running:
        running.wait_log("connected to")
        time.sleep(3.0)
        server.reset()
        moved_s = time.monotonic()
        (directory / "filled.db").rename(running.inbox_path)
        _, last_s = server.wait(rows, 120)
        assert running.stop() == 0
    return rows / (last_s - moved_s)


WAYS: dict[str, Callable[[Path, Server, int], float]] = {
    "this gateway": gateway,
    "mosquitto bridge, persistent": mosquitto_bridge,
    "tb-mqtt-client, by hundreds": tb_mqtt_client,
    "tb-mqtt-client, one by one": lambda directory, server, rows: tb_mqtt_client(directory, server, rows, 1),
    "thingsboard-gateway, SQLite": thingsboard_gateway,
}


def rounds(times: int, rows: int) -> Iterator[tuple[str, float]]:
    """(way, records/s), all ways in each round."""
    for _ in range(times):
        for name, way in WAYS.items():
            with tempfile.TemporaryDirectory() as place, stand_in(Path(place), is_gateway=True) as server:
                server.reset()
                (Path(place) / "way").mkdir()
                yield name, way(Path(place) / "way", server, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    found: dict[str, list[float]] = {}
    for name, per_s in rounds(options.rounds, options.rows):
        found.setdefault(name, []).append(per_s)
        print(f"{name:30} {per_s:9,.0f}/s", flush=True)
    ours = statistics.median(found["this gateway"])
    for name, rates in found.items():
        print(f"{name:30} median {statistics.median(rates):9,.0f}/s   {ours / statistics.median(rates):6.1f} x")


if __name__ == "__main__":
    main()
