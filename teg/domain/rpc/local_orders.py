"""What a person on the device has the running gateway do, with the archive that only it writes: `teg dead-letters`,
`teg archive republish`. The same methods, parameters and refusals as from ThingsBoard."""

import logging
from collections.abc import Callable
from typing import Any

import orjson

from teg.domain.errors import Refused, Unavailable
from teg.domain.rpc.methods import archive_orders
from teg.domain.rpc.ports import ArchiveControl

logger = logging.getLogger("gateway.rpc")


def encode_order(method: str, params: dict[str, Any]) -> bytes:
    return orjson.dumps({"method": method, "params": params})


def obey(archive: ArchiveControl, request: bytes, say: Callable[[bytes], None]) -> bytes:
    """`request` is of `encode_order`. Says `{"done": rows}` meanwhile; the answer is `{"ok": …}` or `{"error": …}`."""
    orders = archive_orders(archive, lambda done: say(orjson.dumps({"done": done})))
    method, params = _parsed(request)
    if method not in orders:
        return orjson.dumps({"error": f"this gateway does not know the order '{method}': is it of an earlier version?"})
    try:
        answer = orders[method](params).run()
    except (Refused, Unavailable) as reason:
        return orjson.dumps({"error": str(reason)})
    logger.info("asked for on this device: %s: %s", method, answer)
    return orjson.dumps({"ok": answer})


def _parsed(request: bytes) -> tuple[str, Any]:
    try:
        order = orjson.loads(request)
    except orjson.JSONDecodeError:
        return "", None
    order = order if isinstance(order, dict) else {}
    return str(order.get("method")), order.get("params")
