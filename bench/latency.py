"""How long a message takes from insert to server, and a `ping` meanwhile: slowly, fast, behind a backlog.

python -m bench.latency [--messages 60] [--runs 5] [--backlog 200000]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.drain import connected_gateway
from bench.records import fill
from bench.server import Server, stand_in
from tests.support.running import ControllerInbox

KEY = "fresh"
#: Between two messages, and two pings, while a backlog drains: below the server's limit of calls.
DRAINING_S = 0.25


@dataclass(slots=True)
class Taken:
    """Milliseconds: of each message from its insert to its arrival (whole ones), of each ping to its answer."""

    messages_ms: list[float] = field(default_factory=list)
    pings_ms: list[float] = field(default_factory=list)


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def steady(directory: Path, server: Server, per_s: float, messages: int) -> Taken:
    """Messages at a steady rate; the first second's are not counted."""
    server.reset()
    with connected_gateway(directory, server) as gateway:
        inbox = ControllerInbox(gateway.inbox_path)
        inserted: dict[int, float] = {}
        warm, began_s = max(2, round(per_s)), time.monotonic()
        for number in range(warm + messages):
            inserted[number] = _insert(inbox, number)
            time.sleep(max(0.0, began_s + (number + 1) / per_s - time.monotonic()))
        arrived = _all_arrived(server, inserted)
        inbox.close()
    return Taken([arrived[number] - inserted[number] for number in range(warm, warm + messages)])


def while_draining(directory: Path, server: Server, rows: int) -> Taken:
    """A message and a ping four times a second while a backlog drains."""
    server.reset()
    fill(directory / "filled.db", rows)
    taken = Taken()
    with connected_gateway(directory, server) as gateway:
        (directory / "filled.db").rename(gateway.inbox_path)
        inbox = ControllerInbox(gateway.inbox_path)
        inserted: dict[int, float] = {}
        while server.received() < rows:
            inserted[len(inserted)] = _insert(inbox, len(inserted))
            taken.pings_ms.append(server.ping())
            time.sleep(DRAINING_S)
        arrived = _all_arrived(server, inserted)
        inbox.close()
    taken.messages_ms = [arrived[number] - moment_ms for number, moment_ms in inserted.items()]
    return taken


def _all_arrived(server: Server, inserted: Mapping[int, float]) -> dict[int, int]:
    deadline_s = time.monotonic() + 60
    while len(arrived := server.arrivals(KEY)) < len(inserted):
        assert time.monotonic() < deadline_s, f"{len(arrived)} of {len(inserted)} messages arrived"
        time.sleep(0.2)
    return arrived


def _insert(inbox: ControllerInbox, number: int) -> float:
    """Returns the wall clock in ms just before the controller's commit."""
    now_ms = time.time() * 1000
    inbox.insert(f'{{"ts": {int(now_ms)}, "values": {{"{KEY}": {number}, "t": {number % 40}.25}}}}')
    return now_ms


def line(name: str, values: list[float]) -> str:
    return f"{name:32} p50 {statistics.median(values):8.1f} ms   p99 {percentile(values, 0.99):8.1f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=60)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--backlog", type=int, default=200_000)
    options = parser.parse_args()
    for run in range(options.runs):
        for per_s, messages in ((1, options.messages), (100, 10 * options.messages)):
            with tempfile.TemporaryDirectory() as name, stand_in(Path(name), "full") as server:
                found = steady(Path(name) / "g", server, per_s, messages)
            print(line(f"run {run + 1}, {per_s} a second", found.messages_ms), flush=True)
        with tempfile.TemporaryDirectory() as name, stand_in(Path(name), "full") as server:
            (Path(name) / "g").mkdir()
            found = while_draining(Path(name) / "g", server, options.backlog)
        print(line(f"run {run + 1}, while {options.backlog} drain", found.messages_ms), flush=True)
        print(line(f"run {run + 1}, ping while they drain", found.pings_ms), flush=True)


if __name__ == "__main__":
    main()
