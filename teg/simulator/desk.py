"""A server and a gateway on one's own desk: what a controller sends is shown as it arrives. Nothing leaves the machine.

`teg sim desk`, or `python -m teg.simulator.desk`; docs/controller.md, "Try it on your desk".
"""

import argparse
import contextlib
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import orjson

from teg.domain.server import TELEMETRY
from teg.simulator.demo.children import Child, ChildFailed
from teg.simulator.demo.environment import GATEWAY_COMMAND, ROOT, neutral_environment
from teg.simulator.thingsboard.device import Device
from teg.simulator.thingsboard.server import ThingsBoard

NAME, TOKEN = "desk", "desk-token"
LOOK_EVERY_S = 0.2
#: Times of its own that the gateway sends every 20 s.
GATEWAYS_OWN = ("ms_since_controller_startup", "ms_since_last_controller_health_check")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until Ctrl-C or until COMMAND ends; 0, or COMMAND's exit code, or 1 when the gateway could not run."""
    options = _parser().parse_args(arguments)
    directory: Path = options.directory.absolute()
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    try:
        with desk(directory) as device:
            return _watch(device, directory, options.command, stopping)
    except (ChildFailed, OSError) as failure:
        print(f"teg sim desk: {failure}", file=sys.stderr)
        return 1


@contextmanager
def desk(directory: Path) -> Iterator[Device]:
    """A server that knows one device, and a gateway that is connected as it."""
    for path in (directory, directory / "controller", directory / "gateway"):
        path.mkdir(parents=True, exist_ok=True)
    token = directory / "gateway" / "tb_access_token"
    token.touch(mode=0o600)
    token.write_text(TOKEN)
    with ExitStack() as stack:
        server = stack.enter_context(ThingsBoard(packet_log=0))
        device = server.add_device(NAME, TOKEN)
        settings = gateway_settings(directory, server.host, server.port)
        gateway = Child("gateway", GATEWAY_COMMAND, settings, directory, directory)
        stack.callback(gateway.stop)
        while not device.connected:
            gateway.check()
            time.sleep(LOOK_EVERY_S)
        yield device
        gateway.check()


def gateway_settings(directory: Path, host: str, port: int) -> dict[str, str]:
    """Nothing of what this machine's own gateway has set."""
    return {
        **neutral_environment(os.environ, ROOT / ".env"),
        "TEG_ENV_FILE": os.devnull,
        "TB_HOST": host,
        "TB_PORT": str(port),
        "TB_TLS": "off",
        "TEG_DATA_PATH": str(directory / "gateway"),
        "TEG_CONTROLLER_DATA_PATH": str(directory / "controller"),
        "TEG_CONTROLLER_RUNTIME": "none",
        "PYTHONPATH": str(ROOT),
    }


def _watch(device: Device, directory: Path, command: Sequence[str], stopping: threading.Event) -> int:
    """Show what arrives, and run the controller if there is a command for it."""
    data = directory / "controller"
    print(f"a server and a gateway are at work; their log: {directory}/gateway.log", flush=True)
    controller = None
    if command:
        controller = subprocess.Popen(command, env=os.environ | {"TEG_CONTROLLER_DATA_PATH": str(data)})
    else:
        print("start your controller in another terminal, with")
        print(f"\n    export TEG_CONTROLLER_DATA_PATH={shlex.quote(str(data))}\n")
        print("what it sends is shown here; Ctrl-C ends it", flush=True)
    shown = Arrivals(device)
    try:
        while not stopping.wait(LOOK_EVERY_S) and (controller is None or controller.poll() is None):
            shown.show()
    finally:
        code = _end(controller)
    _wait_for_the_rest(shown)
    print(f"{shown.records} records arrived; they are kept in {directory}", flush=True)
    return 0 if stopping.is_set() else code


def _end(controller: subprocess.Popen[bytes] | None) -> int:
    if controller is None:
        return 0
    with contextlib.suppress(ProcessLookupError):
        controller.terminate()
    return controller.wait()


def _wait_for_the_rest(shown: "Arrivals") -> None:
    """What was recorded last arrives within a moment; no longer than a few quiet looks."""
    quiet = 0
    while quiet < 5:
        before = shown.records
        shown.show()
        quiet = quiet + 1 if shown.records == before else 0
        time.sleep(LOOK_EVERY_S)


class Arrivals:
    """Prints each record once. `records` counts the controller's."""

    def __init__(self, device: Device) -> None:
        self.records = 0
        self._device = device
        self._seen = 0

    def show(self) -> None:
        total, publishes = self._device.publish_count, self._device.publishes
        new = publishes[len(publishes) - min(len(publishes), total - self._seen) :]
        self._seen = total
        for publish in new:
            if publish.topic == TELEMETRY:
                self._show(orjson.loads(publish.payload))

    def _show(self, payload: Any) -> None:
        for record in payload if isinstance(payload, list) else [payload]:
            if line := arrived(record):
                self.records += 0 if "severity" in record.get("values", {}) else 1
                print(line, flush=True)


def arrived(record: Mapping[str, Any]) -> str:
    """A line; empty for what is the gateway's own."""
    values: Mapping[str, Any] = record.get("values", record)
    if set(values) & set(GATEWAYS_OWN) or any(key.startswith(("current_sw_", "sw_")) for key in values):
        return ""
    at = time.strftime("%H:%M:%S", time.localtime(record.get("ts", 0) / 1000))
    if "severity" in values and "message" in values:
        return f"{at}  log: {values['severity']} {values['message']}"
    return f"{at}  " + ", ".join(f"{key} = {orjson.dumps(value).decode()}" for key, value in values.items())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="teg sim desk", description="A server and a gateway to try a controller with."
    )
    parser.add_argument(
        "--directory", type=Path, default=Path("teg-desk"), help="where everything is kept (%(default)s)"
    )
    parser.add_argument("command", nargs="*", metavar="COMMAND", help="your controller, e.g. -- python3 main.py")
    return parser


if __name__ == "__main__":
    sys.exit(main())
