"""How fast a backlog drains: the gateway beside the ideal sketch, on the same machine, in the same run, as a ratio.

python -m bench.drain [--rows 200000] [--rounds 3]
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from bench import sketch
from bench.server import TOKEN, Server, stand_in
from tests.support.running import ControllerInbox, RunningGateway


def record(number: int) -> str:
    return (
        f'{{"ts": {1_767_225_600_000 + number}, "values": {{"co2": {400 + number % 100}.5, "temperature": 21.25, '
        f'"humidity": 48.1, "pressure": 1013.2, "n": {number}}}}}'
    )


def fill(path: Path, rows: int) -> None:
    inbox = ControllerInbox(path)
    inbox.insert_many(record(number) for number in range(rows))
    inbox.close()


def sketch_rate(directory: Path, server: Server, rows: int) -> float:
    fill(directory / "inbox.db", rows)
    server.reset()
    started = time.monotonic()
    moved = sketch.drain(
        directory / "inbox.db", directory / "archive.db", server.host, server.port, server.tls.ca_file, TOKEN
    )
    assert moved == rows
    server.wait(rows, 60)
    return rows / (time.monotonic() - started)


def gateway_rate(directory: Path, server: Server, rows: int) -> tuple[float, float]:
    """Returns (records/s from the first arrival to the last, seconds from the process's start to the first)."""
    gateway = RunningGateway(
        directory, server.host, server.port, TOKEN, TB_TLS="on", THINGSBOARD_CA_CERT=str(server.tls.ca_file)
    )
    fill(gateway.inbox_path, rows)
    server.reset()
    started = time.monotonic()
    with gateway:
        first, last = server.wait(rows, 300)
        deadline = time.monotonic() + 30
        while gateway.rows("SELECT count(*) FROM outbox WHERE lane = 1") != [(0,)]:
            assert time.monotonic() < deadline, "the outbox is not empty"
            time.sleep(0.05)
        assert gateway.archived() == rows, f"archived {gateway.archived()} of {rows}"
        assert gateway.stop() == 0
    assert server.received() >= rows
    return rows / (last - first), first - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    ratios, starts = [], []
    with tempfile.TemporaryDirectory() as name, stand_in(Path(name)) as server:
        for number in range(options.rounds):
            ideal_dir, gateway_dir = (Path(name) / f"{kind}{number}" for kind in ("ideal", "gateway"))
            ideal_dir.mkdir()
            ideal = sketch_rate(ideal_dir, server, options.rows)
            rate, start_s = gateway_rate(gateway_dir, server, options.rows)
            ratios.append(rate / ideal)
            starts.append(start_s)
            print(
                f"ideal {ideal:>9,.0f}/s   gateway {rate:>9,.0f}/s   ratio {rate / ideal:.2f}   start {start_s:.2f} s"
            )
    print(f"drain ratio (median of {options.rounds}): {statistics.median(ratios):.2f}")
    print(f"start to first arrival (median): {statistics.median(starts):.2f} s")


if __name__ == "__main__":
    main()
