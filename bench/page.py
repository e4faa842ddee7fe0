"""What the status page costs: two gateways side by side, one with the page, at rest and while it is looked at.

python -m bench.page [--seconds 60] [--looked 60]
"""

import argparse
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

from bench.cost import Usage, usage
from teg.adapters.page_listener import listen
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.running import ControllerInbox, RunningGateway, message, own_address

LOADS = 10
PATHS = ("/", "/page.css", "/page.js", "/plots.js", "/api/session", "/api/picture", "/api/history", "/api/log/gateway")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="at rest")
    parser.add_argument("--looked", type=int, default=60, help="with a page that is looked at")
    arguments = parser.parse_args()
    seconds, looked = arguments.seconds, arguments.looked
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=Path.cwd())))
        server = stack.enter_context(ThingsBoard())
        with closing(listen(f"{own_address()}:0")) as probe:
            address = "{}:{}".format(*probe.getsockname())
        off = _gateway(stack, server, folder / "off", "")
        on = _gateway(stack, server, folder / "on", address)
        time.sleep(15)
        print(f"memory (resident), page off: {_rss_kb(off):,} kB, on and not looked at: {_rss_kb(on):,} kB")
        print(f"at rest for {seconds} s:  {_compare(off, on, seconds, lambda: None)}")
        most = 0
        for _ in range(LOADS):
            _load(address, PATHS)
            most = max(most, _rss_kb(on))
        print(f"memory during {LOADS} loads of the page: {most:,} kB, {most - _rss_kb(off):,} kB more than without")
        print(f"looked at for {looked} s: {_compare(off, on, looked, lambda: _load(address, ('/api/picture',)))}")
        print(f"memory after that: {_rss_kb(on) - _rss_kb(off):,} kB more than without")


def _gateway(stack: ExitStack, server: ThingsBoard, folder: Path, console: str) -> RunningGateway:
    device = server.add_device(folder.name, token=folder.name)
    gateway = RunningGateway(folder, "127.0.0.1", server.port, folder.name, TEG_CONSOLE=console)
    inbox = stack.enter_context(closing(ControllerInbox(gateway.inbox_path)))
    inbox.insert_many([message(number) for number in range(5_000)])
    stack.enter_context(gateway)
    device.wait_for(lambda found: found.distinct >= 5_000, 60)
    return gateway


def _compare(off: RunningGateway, on: RunningGateway, seconds: int, look: Callable[[], None]) -> str:
    before = [_usage(each) for each in (off, on)]
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        look()
        time.sleep(2)
    after = [_usage(each) for each in (off, on)]
    cpu_s = [now.cpu_s - then.cpu_s for then, now in zip(before, after, strict=True)]
    written = [now.written_bytes - then.written_bytes for then, now in zip(before, after, strict=True)]
    return f"CPU off {cpu_s[0]:.2f} s, on {cpu_s[1]:.2f} s; written off {written[0]:,} bytes, on {written[1]:,} bytes"


def _load(address: str, paths: tuple[str, ...]) -> None:
    for path in paths:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=20) as answer:
            answer.read()


def _usage(gateway: RunningGateway) -> Usage:
    assert gateway.process is not None
    return usage(gateway.process.pid)


def _rss_kb(gateway: RunningGateway) -> int:
    return _usage(gateway).rss_bytes // 1024


if __name__ == "__main__":
    main()
