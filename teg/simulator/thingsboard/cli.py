"""`python -m teg.simulator.thingsboard`: the stand-in as a process, with its account as one JSON line per second."""

import argparse
import contextlib
import json
import os
import queue
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from teg.simulator.thingsboard.account import server_account
from teg.simulator.thingsboard.device_state import PushOrder
from teg.simulator.thingsboard.rate_limits import RateLimits
from teg.simulator.thingsboard.server import ThingsBoard
from teg.simulator.thingsboard.server_limits import ServerLimits
from teg.simulator.thingsboard.server_queue import PackOrder
from teg.simulator.thingsboard.server_versions import VERSIONS
from teg.simulator.thingsboard.telemetry_store import Depth

_EPILOG = """\
The first line is {"listening": {"host": ..., "port": ..., "ca_file": ...}}, printed when devices may connect;
with --rest-port it has "rest_url" as well (user tenant@thingsboard.org, password tenant).
Every further line is an account: {"time_ms": ..., "final": false, "connections": ..., "devices": {NAME: {...}}}.
SIGTERM or SIGINT ends with a last account, "final": true, and exit status 0.
SIGUSR1 is a crash: what was acknowledged and not yet stored (--store-delay) is forgotten, all connections drop.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    if problem := _contradiction(options):
        parser.error(problem)
    requests = _signal_requests()
    tls = _tls(options.tls_dir, options.tls_name)
    try:
        server = _server(options, tls)
    except OSError as error:
        ports = f"--port {options.port}" + ("" if options.rest_port is None else f" --rest-port {options.rest_port}")
        parser.error(f"--host {options.host} {ports}: cannot listen there: {error.strerror}")
    _prepare(server, options)
    with _ending_with_its_reader(), server:
        place = {"host": server.host, "port": server.port, "ca_file": str(tls.ca_file) if tls else None}
        rest = {} if options.rest_port is None else {"rest_url": server.rest_url}
        _say({"listening": {**place, **rest}}, None)
        while not _is_over(requests, server, options.interval):
            _say(server_account(server), options.state_file)
        server.store_queued()
        _say(server_account(server, final=True), options.state_file)
    return 0


def _signal_requests() -> "queue.SimpleQueue[int]":
    """Signals as they arrive; a SimpleQueue may be used inside a signal handler."""
    requests: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, lambda number, _frame: requests.put(number))
    return requests


def _is_over(requests: "queue.SimpleQueue[int]", server: ThingsBoard, interval_s: float) -> bool:
    """Wait until the next account is due (False) or the end (True); crash when told to."""
    while True:
        try:
            number = requests.get(timeout=interval_s or None)
        except queue.Empty:
            return False
        if number != signal.SIGUSR1:
            return True
        server.crash()


@contextlib.contextmanager
def _ending_with_its_reader() -> Iterator[None]:
    """A closed pipe is a regular end; what Python still wants to flush goes nowhere."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m teg.simulator.thingsboard",
        description="A ThingsBoard stand-in: the device MQTT API on one port, and an account of what arrived.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    add("--port", type=int, default=1883, help="port, 0 = any free one (default %(default)s)")
    add("--rest-port", type=int, metavar="PORT", help="answer the REST API there, 0 = any free one (default: nowhere)")
    add("--tls-dir", type=Path, metavar="DIR", help="use TLS; CA and certificate are made here if missing")
    add("--tls-name", action="append", metavar="NAME", help="name or address the certificate is good for")
    add("--device", action="append", default=[], type=_pair, metavar="NAME:TOKEN", help="repeatable")
    add("--provision", action="append", default=[], type=_pair, metavar="KEY:SECRET", help="repeatable")
    add("--shared", action="append", default=[], type=_attributes, metavar="NAME:FILE", help=_SHARED_HELP)
    add("--rate-limits", type=_rate_limits, metavar="SPEC", help='such as "20:1,600:60" (default: none)')
    add("--puback-delay", type=_seconds, default=0.0, metavar="SECONDS", help="hold every PUBACK back")
    add("--store-delay", type=_seconds, default=0.0, metavar="SECONDS", help=_STORE_DELAY_HELP)
    add("--server-version", choices=VERSIONS, default="4.2.1.1", help="to behave like (default %(default)s)")
    add("--push-order", choices=get_args(PushOrder), default="delete_first", help=_PUSH_ORDER_HELP)
    add(
        "--pack-size",
        type=_positive,
        default=1000,
        metavar="N",
        help="messages the server takes from its queue at a time",
    )
    add("--pack-order", choices=get_args(PackOrder), default="any", help=_PACK_ORDER_HELP)
    add("--drop-client-attributes", action="store_true", help="acknowledge them and keep none (a custom rule chain)")
    add("--store", choices=get_args(Depth), default="distinct", help=_STORE_HELP)
    add("--interval", type=_seconds, default=1.0, metavar="SECONDS", help="0 = only the final account")
    add("--state-file", type=Path, metavar="FILE", help="also write each account here, atomically")
    return parser


_SHARED_HELP = "shared attributes of a device from a JSON file, repeatable"
_STORE_DELAY_HELP = "acknowledge first, store later: time for one pack of the server's queue (default: at once)"
_PUSH_ORDER_HELP = "of the two pushes of a package assignment (default %(default)s)"
_PACK_ORDER_HELP = "in which order the messages of one pack are stored (default %(default)s)"
_STORE_HELP = (
    "full keeps every raw payload; distinct keeps the points (default); count keeps numbers only and "
    "is the cheapest, but does not tell duplicates"
)


def _pair(text: str) -> tuple[str, str]:
    """At the last colon: device names may have colons, tokens may not."""
    first, colon, second = text.rpartition(":")
    if not (first and colon and second):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form A:B")
    return first, second


def _attributes(text: str) -> tuple[str, dict[str, Any]]:
    name, file = _pair(text)
    try:
        values = json.loads(Path(file).read_text())
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"cannot read {file}: {error}") from error
    if not isinstance(values, dict):
        raise argparse.ArgumentTypeError(f"{file} holds no JSON object")
    return name, values


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def _seconds(text: str) -> float:
    """ValueError, which argparse words itself, for what is no number."""
    seconds = float(text)
    if not 0 <= seconds < 1e9:
        raise argparse.ArgumentTypeError(f"{text} is no length of time")
    return seconds


def _rate_limits(text: str) -> RateLimits:
    try:
        return RateLimits.checked(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _contradiction(options: argparse.Namespace) -> str:
    """What no single option shows, in words; empty if all is well."""
    names = [name for name, _ in options.device]
    if twice := {name for name in names if names.count(name) > 1}:
        return f"--device: more than one device is called {', '.join(sorted(twice))}"
    if strange := {name for name, _ in options.shared} - set(names):
        return f"--shared: there is no --device {', '.join(sorted(strange))}"
    return ""


def _tls(directory: Path | None, names: list[str] | None) -> Any:
    """`trustme` is only needed, and only imported, with TLS."""
    if directory is None:
        return None
    from teg.simulator.thingsboard.tls import LOCAL_NAMES, ServerTls

    existing = ServerTls.in_directory(directory)
    return existing if existing.exists() else ServerTls.create(directory, names or LOCAL_NAMES)


def _server(options: argparse.Namespace, tls: Any) -> ThingsBoard:
    limits = ServerLimits(
        options.server_version, options.push_order, rate_limits=options.rate_limits, pack_size=options.pack_size
    )
    return ThingsBoard(
        options.port,
        tls,
        host=options.host,
        limits=limits,
        store=options.store,
        packet_log=0,
        rest_port=options.rest_port,
    )


def _prepare(server: ThingsBoard, options: argparse.Namespace) -> None:
    for name, token in options.device:
        server.add_device(name, token)
    for key, secret in options.provision:
        server.provisioning.allow(key, secret)
    for name, values in options.shared:
        server.device(name).set_shared(values)
    faults = server.faults
    faults.puback_delay_s = options.puback_delay
    faults.store_delay_s, faults.pack_order = options.store_delay, options.pack_order
    faults.drop_client_attributes = options.drop_client_attributes


def _say(account: dict[str, Any], state_file: Path | None) -> None:
    text = json.dumps(account)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
    if state_file is not None:
        beside = state_file.with_name(f"{state_file.name}.{os.getpid()}")
        beside.write_text(text)
        beside.replace(state_file)
