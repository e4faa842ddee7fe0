"""Tells systemd how we are: ready, alive, stopping (sd_notify(3)). Without systemd every call does nothing."""

import logging
import socket
import time

logger = logging.getLogger("gateway")

#: The unit's WatchdogSec is several times this.
ALIVE_EVERY_S = 30.0


class ServiceManager:
    """`address` is NOTIFY_SOCKET: a path, or a name of Linux's abstract sockets when it begins with `@`."""

    def __init__(self, address: str | None) -> None:
        self._address = "\0" + address[1:] if address and address.startswith("@") else address
        self._alive_due_s = 0.0

    def ready(self) -> None:
        self._tell("READY=1")

    def stopping(self) -> None:
        self._tell("STOPPING=1")

    def alive(self) -> None:
        """Call it as often as you like, but only while work gets on; sends no more than one word in 30 s."""
        now_s = time.monotonic()
        if now_s >= self._alive_due_s:
            self._alive_due_s = now_s + ALIVE_EVERY_S
            self._tell("WATCHDOG=1")

    def _tell(self, word: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
                manager.settimeout(1.0)
                manager.sendto(word.encode(), self._address)
        except OSError as error:
            logger.warning("the service manager does not hear us (%s): %s", word, error)
