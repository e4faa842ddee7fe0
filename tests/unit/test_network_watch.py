"""The network coming back is heard from the kernel, and the session tries at once."""

import shutil
import struct
import subprocess
import threading
from queue import SimpleQueue

import pytest

from producers.network_watch import NetworkWatch
from teg.adapters.network_changes import NetworkChanges, came_up
from tests.support.running import wait_until
from tests.support.threads import runs

LINK, ADDRESS, ROUTE, OTHER = 16, 20, 24, 17


def news(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def link(flags: int) -> bytes:
    return news(LINK, struct.pack("=BBHiII", 0, 0, 1, 2, flags, 0))


def test_what_counts_as_coming_up() -> None:
    assert came_up(link(0x1043))
    assert not came_up(link(0x1003)), "up, but no carrier"
    assert not came_up(link(0x49)), "the loopback"
    assert came_up(news(ADDRESS, b"\x02" + b"\0" * 7))
    assert came_up(news(ROUTE, bytes([2, 0, 0, 0, 254, 0, 0, 0])))
    assert not came_up(news(ROUTE, bytes([2, 0, 0, 0, 255, 0, 0, 0]))), "the kernel's own table"
    assert not came_up(news(OTHER, b"\0" * 12))
    assert came_up(news(OTHER, b"\0" * 12) + link(0x1043)), "the second of two"


@pytest.mark.parametrize("odd", [b"", b"x", b"\0" * 16, b"\xff" * 40, news(LINK, b"\0"), news(ROUTE, b"")])
def test_odd_bytes_are_no_news(odd: bytes) -> None:
    assert not came_up(odd)


def test_the_watch_tells_and_ends() -> None:
    heard: SimpleQueue[bool] = SimpleQueue()
    told = threading.Event()

    class Changes:
        def wait(self) -> bool:
            return heard.get(timeout=10)

        def close(self) -> None:
            heard.put(False)

        def release(self) -> None:
            pass

    watch = NetworkWatch(Changes(), told.set)
    watch.start()
    heard.put(False)
    assert not told.is_set()
    heard.put(True)
    assert told.wait(10)
    watch.stop()
    assert not runs("network-watch")


@pytest.mark.root
@pytest.mark.skipif(shutil.which("ip") is None, reason="no ip(8)")
def test_a_real_interface_that_comes_up_is_heard() -> None:
    """In the machine's own network: a dummy or veth interface that only this test knows."""
    told = threading.Event()
    watch = NetworkWatch(NetworkChanges(), told.set)
    watch.start()
    subprocess.run(["ip", "link", "add", "tegw0", "type", "veth", "peer", "name", "tegw1"], check=True)
    try:
        subprocess.run(["ip", "link", "set", "tegw1", "up"], check=True)
        subprocess.run(["ip", "link", "set", "tegw0", "up"], check=True)
        wait_until(told.is_set, 10, "the kernel tells")
    finally:
        subprocess.run(["ip", "link", "delete", "tegw0"], check=True)
        watch.stop()
    assert not runs("network-watch")
