"""A gateway process, its controller's inbox and its server, for tests of what happens when things break."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.running import ControllerInbox, RunningGateway, measurements, message, wait_until


class Site:
    """`record(n)` inserts the next n rows; `assert_nothing_lost` compares all three ledgers."""

    def __init__(self, path: Path, server: ThingsBoard, token: str = "T1", **environment: str) -> None:
        self.server = server
        self.device: Device = server.add_device("pi-07", token="T1")
        self.gateway = RunningGateway(path / "site", server.host, server.port, token, **environment)
        self.inbox = ControllerInbox(self.gateway.inbox_path)
        self.recorded = 0

    def record(self, rows: int, filler: int = 0) -> None:
        first, self.recorded = self.recorded + 1, self.recorded + rows
        padding = f', "x": "{"x" * filler}"' if filler else ""
        self.inbox.insert_many(
            message(number).replace("}}", padding + "}}") for number in range(first, self.recorded + 1)
        )

    def stored(self) -> int:
        """How many of our rows the server has."""
        return sum(1 for key, _ in self.device.telemetry() if key == "n")

    def wait_stored(self, rows: int) -> None:
        self.device.wait_for(lambda _: self.stored() >= rows, 60, f"{rows} rows stored")

    def wait_connections(self, number: int) -> None:
        """Wait until the gateway itself has connected so many times."""
        wait_until(lambda: self.gateway.log().count("connected to ") >= number, 60, f"connection {number}")

    def wait_delivered(self, timeout_s: float = 120.0) -> None:
        self.device.wait_for(lambda _: self.stored() >= self.recorded, timeout_s, f"all {self.recorded} rows stored")
        wait_until(lambda: self.inbox.count() == 0, 30, "the inbox is empty")
        wait_until(lambda: self.pending() == 0, 30, "everything is marked")

    def pending(self) -> int:
        return int(str((self.gateway.rows("SELECT count(*) FROM outbox WHERE lane = 1") or [(-1,)])[0][0]))

    def unproven(self) -> set[int]:
        """Numbers of the rows that are acknowledged and not proven to be stored."""
        rows = self.gateway.rows(
            "SELECT json_extract(r.message, '$.values.n') FROM unproven u JOIN record r"
            " ON r.id BETWEEN u.first_id AND u.last_id WHERE u.lane = 1 AND r.kind = 0"
        )
        return {int(str(number)) for (number,) in rows}

    def counters(self) -> dict[str, int]:
        rows = self.gateway.rows("SELECT name, value FROM counter")
        return {str(name): int(str(value)) for name, value in rows}

    def dead_letters(self) -> list[tuple[bytes, str]]:
        rows = self.gateway.rows("SELECT CAST(message AS BLOB), reason FROM dead_letter ORDER BY id")
        return [(bytes(text) if isinstance(text, bytes) else b"", str(reason)) for text, reason in rows]

    def assert_nothing_lost(self) -> None:
        """Recorded = stored on the server, each once; the archive has each once; the account is exact."""
        expected = measurements(1, self.recorded)
        self.device.assert_each_stored_once(expected)
        self.device.assert_qos1_only()
        self.device.assert_max_unacked(20)
        kept = self.gateway.rows("SELECT count(*), count(DISTINCT ts) FROM record WHERE kind = 0")
        assert kept == [(self.recorded, self.recorded)]
        self.assert_account()

    def assert_account(self) -> None:
        counters = self.counters()
        accepted = counters.get("accepted", 0)
        ways = sum(counters.get(name, 0) for name in ("delivered", "held", "evicted"))
        assert accepted == ways + self.pending(), counters


@contextmanager
def running_site(path: Path, server: ThingsBoard, token: str = "T1", **environment: str) -> Iterator[Site]:
    """A site whose gateway is started and connected."""
    site = Site(path, server, token, **environment)
    with site.gateway, closing(site.inbox):
        site.device.wait_connected(30)
        yield site
