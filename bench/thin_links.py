"""What a month on a thin link costs, from bytes that the kernel counted on the wire: TLS, TCP and IP included.

python -m bench.thin_links [--messages 40]      (two minutes; prints the tables of docs/thin-links.md)

Each part is measured by itself, with the gateway's own session against the stand-in over TLS on the loopback: one
message at a time, with a pause after it, so that acknowledgements of TCP travel alone as they do on a slow link. The
months are sums of the parts, which is exact for what a link carries when nothing is lost; what is lost goes twice.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any

import orjson

from bench.server import TOKEN, Server, stand_in
from teg.adapters import tls
from teg.adapters.mqtt_session import MqttSession
from teg.adapters.mqtt_session import Server as Address
from teg.domain.server.attributes import ServerAttributes
from teg.domain.server.link_budget import MB
from teg.domain.server.wire import ATTRIBUTES, TELEMETRY
from teg.domain.telemetry.compact import compact
from teg.domain.telemetry.storage_proof import BYTES, LONGEST_S, METERED_BYTES, METERED_S

MONTH_S = 30 * 86_400
#: Longer than a delayed acknowledgement of TCP, on both sides.
PAUSE_S = 0.25
KEEPALIVE_S = 5
VALUES = {"temperature": 21.53, "humidity": 48.2, "pm25": 7.4, "pressure": 1013.25, "battery": 3.91}


def record(number: int, blanks: bool = False) -> bytes:
    values = {key: round(value + number % 7, 2) for key, value in VALUES.items()}
    body = {"ts": 1_767_225_600_000 + number * 1000, "values": values}
    text = json.dumps(body) if blanks else json.dumps(body, separators=(",", ":"))
    return text.encode()


def array(*records: bytes) -> bytes:
    return b"[" + b",".join(records) + b"]"


class Wire:
    """Sessions, and the bytes of what is done in one."""

    def __init__(self, server: Server, messages: int) -> None:
        self._server, self._messages = server, messages

    @contextmanager
    def session(self, count: Callable[[int, int], None], short: bool = False) -> Iterator[MqttSession]:
        address = Address(self._server.host, self._server.port, tls.client_context(self._server.tls.ca_file))
        session = MqttSession(
            address, lambda: TOKEN, lambda *_: None, lambda: None, keepalive_s=KEEPALIVE_S, count_bytes=count
        )
        session.start()
        try:
            while not session.connected:
                time.sleep(0.01)
            if short:
                session.use_short_topic(session.epoch)
            yield session
        finally:
            session.stop()

    def connection(self) -> float:
        """TCP, TLS, CONNECT, three subscriptions, DISCONNECT."""
        carried: list[int] = []
        with self.session(lambda sent, received: carried.append(sent + received)):
            time.sleep(PAUSE_S)
        return sum(carried)

    def each(self, act: Callable[[MqttSession], object], short: bool = False) -> float:
        """The median of several: a busy machine splits or joins an acknowledgement of TCP now and then."""
        carried: list[int] = []
        with self.session(lambda sent, received: carried.append(sent + received), short) as session:
            time.sleep(PAUSE_S)
            session.count_bytes()
            costs = []
            for _ in range(self._messages):
                carried.clear()
                act(session)
                time.sleep(PAUSE_S)
                session.count_bytes()
                costs.append(sum(carried))
        return median(costs)

    def ping(self) -> float:
        return self.each(lambda _: time.sleep(KEEPALIVE_S)) if self._messages < 5 else Wire(self._server, 4).ping()


@dataclass(frozen=True, slots=True)
class Costs:
    """Bytes of both directions."""

    connection: float
    ping: float
    proof: float
    alone: float  #: a message with one record of five values
    alone_short: float
    with_blanks: float
    per_record: float  #: of many in one message
    one_value: float


def proof(session: MqttSession) -> None:
    attributes = ServerAttributes(session)
    for number in range(2):
        session.deliver(ATTRIBUTES, orjson.dumps({"teg_watermark": f"0123456789ab.{number}.abcdef"}))
        attributes.request_attributes(client_keys=("teg_watermark",))


def measured(wire: Wire) -> Costs:
    def publish(*records: bytes) -> Callable[[MqttSession], object]:
        return lambda session: session.deliver(TELEMETRY, array(*records))

    alone, many = wire.each(publish(record(1))), wire.each(publish(*map(record, range(60))))
    costs = Costs(
        connection=wire.connection(),
        ping=wire.ping(),
        proof=wire.each(proof),
        alone=alone,
        alone_short=wire.each(publish(record(1)), short=True),
        with_blanks=wire.each(publish(record(1, blanks=True))),
        per_record=(many - alone) / 59,
        one_value=wire.each(publish(b'{"ts":1767225600000,"values":{"temperature":21.5}}')),
    )
    return Costs(
        *(round(getattr(costs, each.name)) for each in fields(Costs))
    )  # the months follow from what is printed


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a gateway is set: seconds between two messages, pings and auxiliary telemetry, and when it proves storage."""

    name: str
    gather_s: int = 0
    keepalive_s: int = 30
    auxiliary_s: int = 20
    proof_s: float = LONGEST_S
    proof_bytes: int = BYTES
    short: bool = False


METERED: dict[str, Any] = {
    "keepalive_s": 300, "auxiliary_s": 3600, "proof_s": METERED_S[1], "proof_bytes": METERED_BYTES, "short": True
}  # fmt: skip
PLANS = (
    Plan(name="as installed"),
    Plan(name="set for a thin link", **METERED),
    Plan(name="and gathered for 60 s", gather_s=60, **METERED),
    Plan(name="and gathered for 600 s", gather_s=600, **METERED),
)
RATES = (("1 s", 1), ("10 s", 10), ("1 min", 60), ("10 min", 600), ("1 h", 3600))


def month(costs: Costs, every_s: int, plan: Plan) -> float:
    """Megabytes of a record of five values each `every_s` seconds, and one new connection a day."""
    message_s = max(every_s, plan.gather_s)
    messages, records = MONTH_S / message_s, MONTH_S / every_s
    proof_s = max(min(plan.proof_s, plan.proof_bytes * every_s / (len(record(1)) + 1)), message_s)
    quiet_s = min(message_s, plan.auxiliary_s)
    pings = MONTH_S / quiet_s * ((quiet_s - 1) // plan.keepalive_s)
    size = messages * (costs.alone_short if plan.short else costs.alone) + (records - messages) * costs.per_record
    size += MONTH_S / plan.auxiliary_s * costs.one_value + MONTH_S / proof_s * costs.proof
    size += pings * costs.ping + 30 * costs.connection
    return size / MB


def lines(costs: Costs) -> Iterator[str]:
    yield "| what | bytes on the wire, both directions |"
    yield "|---|---|"
    yield f"| a connection: TCP, TLS, MQTT, three subscriptions | {costs.connection:.0f} |"
    yield f"| a ping of the keep-alive | {costs.ping:.0f} |"
    yield f"| a message with one record of five values ({len(record(1))} bytes) | {costs.alone:.0f} |"
    yield f"| the same with the short topic (`TB_SHORT_TOPIC=on`) | {costs.alone_short:.0f} |"
    blanks = f"the same as `json.dumps` writes it, with blanks ({len(record(1, True))} bytes)"
    yield f"| {blanks} | {costs.with_blanks:.0f} |"
    yield f"| a message with one value | {costs.one_value:.0f} |"
    yield f"| each further record in the same message | {costs.per_record:.0f} |"
    yield f"| a proof of storage | {costs.proof:.0f} |"
    yield ""
    yield "| a record of five values every | " + " | ".join(plan.name for plan in PLANS) + " |"
    yield "|---|" + "---|" * len(PLANS)
    for name, every_s in RATES:
        cells = (f"{month(costs, every_s, plan):.0f} MB" for plan in PLANS)
        yield f"| {name} | " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=40)
    options = parser.parse_args()
    assert compact(record(1, blanks=True)) == record(1)
    with tempfile.TemporaryDirectory() as directory, stand_in(Path(directory)) as server:
        for line in lines(measured(Wire(server, options.messages))):
            print(line)


if __name__ == "__main__":
    main()
