"""What the proofs of storage cost: bytes at a record a second, and bytes and processor time of a drain.

python -m bench.proofs [--seconds 600] [--rows 1000000] [--rounds 1]

Beside each gateway runs one whose server keeps no client attributes: that one is known to give no proofs, so none is
tried. Bytes are counted on the wire, both ways, by a proxy.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.attacks import family
from bench.records import record
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.running import ControllerInbox, RunningGateway, message, wait_until
from tests.support.throttled_link import ThrottledLink

WIDE = 100_000_000
TICK_S = os.sysconf("SC_CLK_TCK")


@dataclass
class Line:
    """A gateway, its server and the counting proxy between them."""

    server: ThingsBoard
    link: ThrottledLink
    gateway: RunningGateway
    inbox: ControllerInbox

    @property
    def bytes(self) -> int:
        return self.link.up + self.link.down

    def learn(self, proofs: bool) -> None:
        """Both kinds begin when it is known what the server gives."""
        self.inbox.insert(message(0))
        if proofs:
            wait_until(lambda: self.counter("stored") >= 1, 120, "the first proof")
        else:
            self.gateway.wait_log("does not give back the client attribute", 300)

    def counter(self, name: str) -> int:
        return int(str((self.gateway.rows(f"SELECT value FROM counter WHERE name = '{name}'") or [(0,)])[0][0]))

    def processor_s(self) -> float:
        """Of the gateway and its children, as long as they live."""
        assert self.gateway.process is not None
        total = 0
        for pid in family(self.gateway.process.pid):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICK_S


@contextmanager
def line(directory: Path, proofs: bool) -> Iterator[Line]:
    with ThingsBoard(store="count", packet_log=0) as server:
        server.add_device("bench", token="T1")
        server.faults.drop_client_attributes = not proofs
        with ThrottledLink((server.host, server.port), WIDE) as link:
            gateway = RunningGateway(directory, "127.0.0.1", link.port, "T1")
            with closing(ControllerInbox(gateway.inbox_path)) as inbox, gateway:
                made = Line(server, link, gateway, inbox)
                made.learn(proofs)
                yield made


def a_second(directory: Path, seconds: int) -> None:
    """Four gateways side by side: with and without proofs, with and without a reconnect every minute."""
    kinds = [(proofs, cuts) for proofs in (True, False) for cuts in (True, False)]
    with ExitStack() as stack:
        lines = {
            (proofs, cuts): stack.enter_context(line(directory / f"{proofs}-{cuts}", proofs)) for proofs, cuts in kinds
        }
        before = {kind: one.bytes for kind, one in lines.items()}
        for second in range(1, seconds + 1):
            for (_, cuts), one in lines.items():
                one.inbox.insert(record(second))
                if cuts and second % 60 == 0:
                    one.server.drop_connections()
            time.sleep(1.0)
        spent = {kind: one.bytes - before[kind] for kind, one in lines.items()}
    for cuts, name in ((False, "one session"), (True, "a reconnect every minute")):
        proven, plain = spent[True, cuts], spent[False, cuts]
        print(
            f"a record a second for {seconds} s, {name}: {proven} bytes with proofs, {plain} without:"
            f" {100 * (proven / plain - 1):+.1f} %",
            flush=True,
        )


def drain(directory: Path, rows: int, proofs: bool) -> tuple[float, float, float]:
    """Returns bytes, processor seconds of the gateway, and seconds, each of the whole drain."""
    with line(directory, proofs) as one:
        device = one.server.device("bench")
        one.server.stop_listening()
        spent_bytes, spent_s, began_s = one.bytes, one.processor_s(), time.monotonic()
        one.server.start_listening()
        one.inbox.insert_many(record(number) for number in range(1, rows + 1))
        wait_until(lambda: device.records_received > rows, 1800, f"{rows} records")
        wait_until(lambda: one.counter("delivered") > rows, 120, "everything is marked")
        return one.bytes - spent_bytes, one.processor_s() - spent_s, time.monotonic() - began_s


def drains(directory: Path, rows: int, rounds: int) -> None:
    """One after the other, in turn."""
    seen: dict[bool, list[tuple[float, float, float]]] = {True: [], False: []}
    for number in range(rounds):
        for proofs in (number % 2 == 0, number % 2 == 1):
            seen[proofs].append(drain(directory / f"drain-{number}-{proofs}", rows, proofs))
            spent_bytes, spent_s, took_s = seen[proofs][-1]
            name = "with proofs" if proofs else "without"
            print(f"{rows} records {name}: {spent_bytes:.0f} bytes, {spent_s:.1f} s of processor, {took_s:.0f} s")
    for index, name in ((0, "bytes"), (1, "processor time")):
        ratios = [a[index] / b[index] for a, b in zip(seen[True], seen[False], strict=True)]
        print(f"drain of {rows}, {name}, with proofs beside without: {100 * (statistics.median(ratios) - 1):+.1f} %")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seconds", type=int, default=600)
    arguments.add_argument("--rows", type=int, default=1_000_000)
    arguments.add_argument("--rounds", type=int, default=1)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if given.seconds:
            a_second(Path(name), given.seconds)
        if given.rows:
            drains(Path(name), given.rows, given.rounds)


if __name__ == "__main__":
    main()
