"""How fast a backlog drains: the gateway beside the ideal sketch, on the same machine, in the same run, as a ratio.

The gateway is connected and idle; a filled inbox is moved into place; the time runs from there to the last arrival.

python -m bench.drain [--rows 100000] [--rounds 5] [--archived 5000000]
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import sketch
from bench.archive import archive_of
from bench.cost import total
from bench.records import fill
from bench.server import TOKEN, Server, stand_in
from tests.support.running import RunningGateway


@dataclass(frozen=True, slots=True)
class Drained:
    """One gateway and one ideal loop. `cpu_us` is the gateway's and its reader's, a record."""

    ideal_per_s: float
    gateway_per_s: float
    cpu_us: float

    @property
    def ratio(self) -> float:
        return self.gateway_per_s / self.ideal_per_s


def sketch_rate(directory: Path, server: Server, rows: int) -> float:
    fill(directory / "inbox.db", rows)
    server.reset()
    started = time.monotonic()
    moved = sketch.drain(
        directory / "inbox.db", directory / "archive.db", server.host, server.port, server.tls.ca_file, TOKEN
    )
    assert moved == rows
    _, last = server.wait(rows, 600)
    return rows / (last - started)


@contextmanager
def connected_gateway(directory: Path, server: Server, archive: Path | None = None) -> Iterator[RunningGateway]:
    """Idle and connected, without an inbox."""
    tls = {"TB_TLS": "on", "THINGSBOARD_CA_CERT": str(server.tls.ca_file)}
    gateway = RunningGateway(directory, server.host, server.port, TOKEN, **tls)
    if archive is not None:
        shutil.copyfile(archive, gateway.data_path / "gateway.db")
    with gateway:
        gateway.wait_log("connected to")
        time.sleep(3.0)
        yield gateway
        assert gateway.stop() == 0


def gateway_rate(directory: Path, server: Server, rows: int, archive: Path | None) -> tuple[float, float]:
    """(records/s, CPU µs a record)"""
    fill(directory / "filled.db", rows)
    with connected_gateway(directory, server, archive) as gateway:
        assert gateway.process is not None
        before, archived = total(gateway.process.pid), gateway.archived()
        server.reset()
        moved = time.monotonic()
        (directory / "filled.db").rename(gateway.inbox_path)
        _, last = server.wait(rows, 600)
        deadline = time.monotonic() + 30
        while gateway.rows("SELECT count(*) FROM outbox WHERE lane = 1") != [(0,)]:
            assert time.monotonic() < deadline, "the outbox is not empty"
            time.sleep(0.05)
        used = total(gateway.process.pid).since(before)
        assert gateway.archived() - archived == rows, f"archived {gateway.archived() - archived} of {rows}"
    return rows / (last - moved), used.cpu_s / rows * 1e6


def rounds(count_: int, rows: int, archived: int = 0) -> Iterator[Drained]:
    """In turns: ideal, gateway, ideal, gateway …"""
    with tempfile.TemporaryDirectory() as name, stand_in(Path(name)) as server:
        archive = Path(name) / "archived.db" if archived else None
        if archive is not None:
            archive_of(archive, archived).close()
        for number in range(count_):
            place = Path(name) / f"round{number}"
            place.mkdir()
            ideal = sketch_rate(place, server, rows)
            yield Drained(ideal, *gateway_rate(place / "gateway", server, rows, archive))
            shutil.rmtree(place)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--archived", type=int, default=0)
    options = parser.parse_args()
    found: list[Drained] = []
    for one in rounds(options.rounds, options.rows, options.archived):
        found.append(one)
        print(
            f"ideal {one.ideal_per_s:>9,.0f}/s   gateway {one.gateway_per_s:>9,.0f}/s   ratio {one.ratio:.2f}"
            f"   CPU {one.cpu_us:.1f} µs/record",
            flush=True,
        )
    ratios = sorted(one.ratio for one in found)
    print(
        f"drain ratio, {options.rows} rows: median {statistics.median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f})"
    )
    print(f"CPU a record: median {statistics.median(one.cpu_us for one in found):.1f} µs")


if __name__ == "__main__":
    main()
