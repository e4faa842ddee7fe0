"""Two machines' networks joined by a cable, apart from the network of the machine that the test runs on. Needs root."""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CLONE_NEWNET = 0x40000000
SERVER = "10.77.0.1"
_DEVICE = "10.77.0.2"


class PrivateNetwork:
    """`on_server()` and `on_device()`: sockets, threads and processes that are made inside belong to that network."""

    def __init__(self, directory: Path) -> None:
        self._ends = {name: directory / name for name in ("server", "device")}
        for path in self._ends.values():
            path.touch()
            _run("unshare", f"--net={path}", "ip", "link", "set", "lo", "up")
        self._ip("device", f"link add cable type veth peer name cable netns {self._ends['server']}")
        for name, address in (("server", SERVER), ("device", _DEVICE)):
            self._ip(name, f"address add {address}/24 dev cable")
            self._ip(name, "link set cable up")

    def _ip(self, end: str, command: str) -> None:
        _run("nsenter", f"--net={self._ends[end]}", "ip", *command.split())

    def plug(self, state: str) -> None:
        """`down` or `up`: the device's interface."""
        self._ip("device", f"link set cable {state}")

    @contextmanager
    def on_server(self) -> Iterator[None]:
        with _inside(self._ends["server"]):
            yield

    @contextmanager
    def on_device(self) -> Iterator[None]:
        with _inside(self._ends["device"]):
            yield

    def remove(self) -> None:
        for path in self._ends.values():
            _run("umount", str(path))


@contextmanager
def private_network(directory: Path) -> Iterator[PrivateNetwork]:
    network = PrivateNetwork(directory)
    try:
        yield network
    finally:
        network.remove()


@contextmanager
def _inside(network: Path) -> Iterator[None]:
    """For this thread and what it makes."""
    with Path("/proc/thread-self/ns/net").open() as before:
        with network.open() as wanted:
            _enter(wanted.fileno())
        try:
            yield
        finally:
            _enter(before.fileno())


def _enter(descriptor: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=20)
