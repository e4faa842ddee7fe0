"""The gateway with a thread that is made to stand, and a watch that looks every 3 s instead of every 15 s.

`STUCK` names the thread: `worker`, `feed`, `network` or none. It stands in `open` of a FIFO that nobody writes into,
from the moment on when the file `STUCK_GO` exists.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gateway
import teg.domain.liveness
from producers import self_watch
from producers.controller_feed import ControllerFeed
from producers.mqtt_listener import MqttListener
from tasks.queue import huey as huey
from teg.domain.telemetry.reporting import Auxiliary

assert gateway.huey is huey

for module, name in ((teg.domain.liveness, "CHECK_S"), (self_watch, "CHECK_S"), (self_watch, "FIRST_CHECK_S")):
    setattr(module, name, 3.0)
GO = Path(os.environ["STUCK_GO"])


def stand(*_: Any) -> None:
    if GO.exists():
        GO.with_suffix(".standing").touch()
        with open(GO.with_suffix(".fifo")):
            raise AssertionError("somebody wrote into the FIFO")


def first_standing(method: Callable[..., Any]) -> Callable[..., Any]:
    def stands_then(*arguments: Any) -> Any:
        stand()
        return method(*arguments)

    return stands_then


PLACES: dict[str, tuple[Any, str]] = {
    "worker": (Auxiliary, "send"),
    "feed": (ControllerFeed, "_look"),
    "network": (MqttListener, "received"),
}
if place := PLACES.get(os.environ["STUCK"]):
    setattr(*place, first_standing(getattr(*place)))
