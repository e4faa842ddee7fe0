"""Whatever the server's attributes hold, no exception escapes, nothing outside is touched, and no report lies."""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from teg.domain.server.wire import parse_attributes
from tests.support.remote_files import Device, Server, md5

KEYS = ["cfg", "a", "b", "FILES", "", "x,y", "ü", "k" * 201]

texts = st.text(st.characters(codec="utf-8"), max_size=12)
numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)
ENDS = ("", "/x", "/d/y", "/../out", "/link", "/folder", "/fifo", "/link/in", "/\0", "//x/.")
paths = st.sampled_from(["/etc/hostname", "rel", "", "%DATA_PATH%/z", *(f"$DATA_PATH{end}" for end in ENDS)])
definitions = st.fixed_dictionaries(
    {"path": paths | values},
    optional={
        "encoding": st.sampled_from(["text", "json", "base64"]) | values,
        "write_version": scalars | values,
        "restart_controller_on_change": st.booleans() | values,
        "create_if_not_exist": st.booleans() | values,
        "mode": st.sampled_from(["0600", "640", "0777"]) | values,
        "confirm_s": st.integers(1, 100) | values,
        "other": values,
    },
)
files = st.dictionaries(st.sampled_from(KEYS), definitions | values, max_size=5)
contents = st.dictionaries(
    st.sampled_from(KEYS).map("FILE_CONTENT_{}".format), st.sampled_from(["hello", "AAEC", "", 42]) | values, max_size=5
)
worlds = st.tuples(files | values, contents, st.none() | values | st.dictionaries(texts, values, max_size=3))
happenings = st.sampled_from(["reconcile", "check", "drift", "remove", "offline", "time", "restart", "reboot", "init"])


class WireServer(Server):
    """Sends every answer through the bytes of the wire."""

    def request_attributes(
        self, client_keys: Sequence[str] = (), shared_keys: Sequence[str] = ()
    ) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        client, shared = super().request_attributes(client_keys, shared_keys)
        answer = parse_attributes(orjson.dumps({"client": client, "shared": shared}))
        return answer.client, answer.shared


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """In memory, so that 2,500 cases do not wait for the disk."""
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as name:
        yield Path(name)


def fresh_device(folder: Path, case: int) -> Device:
    root = folder / str(case)
    (root / "folder").mkdir(parents=True)
    (root / "link").symlink_to(folder / "outside")
    os.mkfifo(root / "fifo")
    device = Device(root)
    device.server = WireServer()
    device.restart_process()
    return device


def ordinary_files(device: Device) -> list[Path]:
    return [path for path in device.root.rglob("*") if path.is_file() and not path.is_symlink()]


def happen(device: Device, what: str) -> None:
    actions: dict[str, Callable[[], object]] = {
        "reconcile": device.files.reconcile if device.server.online else device.files.check,
        "check": device.files.check,
        "drift": lambda: [path.write_bytes(b"drifted") for path in ordinary_files(device)],
        "remove": lambda: list(map(Path.unlink, ordinary_files(device))),
        "offline": lambda: setattr(device.server, "online", not device.server.online),
        "time": lambda: device.wait(45),
        "restart": device.files.restart_controller,
        "reboot": device.reboot,
        "init": device.files.init,
    }
    actions[what]()


def assert_hashes_are_true(device: Device) -> None:
    """After a check every hash that the server has is that of the bytes on disk."""
    device.files.check()
    on_disk = {md5(path.read_bytes()) for path in ordinary_files(device)}
    for entry in (device.hashes or {}).values():
        assert entry["hash"] == "E_NOFILE" or entry["hash"] in on_disk


case = iter(range(10**9))


Story = list[tuple[tuple[Any, Any, Any], list[str]]]
stories = st.lists(st.tuples(worlds, st.lists(happenings, max_size=3)), min_size=1, max_size=2)


@settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stories)
def test_any_attributes_in_any_order(folder: Path, story: Story) -> None:
    live_through(folder, story)


@pytest.mark.torture
@settings(max_examples=5000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stories)
def test_very_many_attributes_in_any_order(folder: Path, story: Story) -> None:
    live_through(folder, story)


def live_through(folder: Path, story: Story) -> None:
    outside = folder / "outside"
    outside.mkdir(exist_ok=True)
    device = fresh_device(folder, next(case))
    for (wanted, given_contents, hashes), events in story:
        device.server.shared = {"FILES": wanted} | given_contents
        if hashes is not None:
            device.server.client["FILE_HASHES"] = hashes
        for event in ("reconcile", *events):
            happen(device, event)
    device.server.online = True
    device.clock.seconds += 45  # our last report has arrived: what the server has now was put there by somebody else
    device.files.reconcile()
    assert_hashes_are_true(device)
    assert list(outside.iterdir()) == []
    sent = [{key: value} for report in device.server.reports for key, value in report.items()]
    assert all(len(orjson.dumps(attribute)) < 60_000 for attribute in sent)
