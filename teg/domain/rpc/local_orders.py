"""What a person on the device has done with the archive that only the gateway writes: `teg dead-letters`, `teg archive
republish`. The methods of ThingsBoard's calls, by the same permissions, groups, limits and journal."""

import threading
from collections.abc import Callable
from typing import Any

import orjson

from teg.domain.errors import NotConnected
from teg.domain.ports import Clock
from teg.domain.rpc.dispatcher import RpcDispatcher
from teg.domain.rpc.journal import CallJournal, JournalTable
from teg.domain.rpc.methods import archive_orders
from teg.domain.rpc.ports import ArchiveControl

ORDERS = ("dead_letters", "archive_republish_messages")


def encode_order(method: str, params: dict[str, Any]) -> bytes:
    return orjson.dumps({"method": method, "params": params})


def obey(calls: RpcDispatcher, request: bytes, say: Callable[[bytes], None]) -> bytes:
    """`request` is of `encode_order`. Says `{"done": rows}` meanwhile; the answer is `{"ok": …}` or `{"error": …}`."""
    method, params = _parsed(request)
    if method not in ORDERS:
        return orjson.dumps({"error": f"this gateway does not know the order '{method}': is it of an earlier version?"})
    answer = calls.call_here(method, params, lambda done: say(orjson.dumps({"done": done})))
    if isinstance(answer, str) and answer.startswith("Error"):
        return orjson.dumps({"error": answer.removeprefix("Error - ")})
    return orjson.dumps({"ok": answer})


def calls_without_a_gateway(
    archive: ArchiveControl, table: JournalTable, clock: Clock, disabled: frozenset[str]
) -> RpcDispatcher:
    """For who holds the gateway's lock in its place: the next gateway finds these calls in its journal."""
    return RpcDispatcher(
        methods=archive_orders(archive),
        disabled=disabled,
        session=NoSession(),
        journal=CallJournal(table, clock),
        clock=clock,
        stopping=threading.Event(),
    )


class NoSession:
    """Where no gateway runs there is none; nothing that is called on the device sends anything."""

    connected = False
    epoch = 0

    def publish(self, topic: str, payload: bytes, on_done: Callable[[bool], None]) -> None:
        raise NotConnected("no gateway runs")

    def deliver(self, topic: str, payload: bytes, timeout_s: float = 30.0) -> None:
        raise NotConnected("no gateway runs")

    def request(self, topic: str, payload: bytes, answer_topic: str, timeout_s: float = 10.0) -> bytes:
        raise NotConnected("no gateway runs")

    def subscribe(self, topic_filter: str) -> None:
        raise NotConnected("no gateway runs")


def _parsed(request: bytes) -> tuple[str, Any]:
    try:
        order = orjson.loads(request)
    except orjson.JSONDecodeError:
        return "", None
    order = order if isinstance(order, dict) else {}
    return str(order.get("method")), order.get("params")
