"""Looking writes nothing: real tables, real HTTP, and what the kernel counts for the threads that serve it."""

import json
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tasks.queue import huey
from teg.adapters.clock import SystemClock
from teg.adapters.page_listener import PageListener, listen
from teg.console.page import looking as looking_module
from teg.console.page.application import StatusPage
from teg.console.page.guards import Names
from teg.console.page.looking import Looking
from teg.console.page.sessions import Sessions
from teg.console.page.tails import Tails
from teg.domain.rpc.journal import CallJournal
from teg.domain.telemetry.validation import Record, SetAside
from teg.settings import Settings
from teg.wiring.page import page_sources
from teg.wiring.storage import Storage, open_storage
from tests.support.rpc import Rig
from tests.support.running import own_address, wait_until

LOOKS = 100


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    settings = Settings.from_environment({"TB_HOST": "x", "TB_PORT": "1", "TEG_DATA_PATH": str(tmp_path / "data")})
    with ExitStack() as stack:
        storage = open_storage(settings, stack, SystemClock(), huey.liveness)
        text = '{"ts":%d,"values":{"temperature":%d,"<b>":"x"}}'
        records = [Record(n, 1_767_225_600_000 + n, 2, text % (n, n), None, False) for n in range(1, 2_001)]
        storage.records.store(records, [SetAside(9_999, "", b"<b>", "no json")], None)
        yield storage


@pytest.fixture
def address(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(looking_module, "FRESH_S", 0.0)  # every look is one
    monkeypatch.setattr(looking_module, "SHARE", 0)
    rig = Rig(tmp_path / "rig.db")
    with closing(listen(f"{own_address()}:0")) as probe:
        address = "{}:{}".format(*probe.getsockname())
    status = replace(rig.status, archive=storage.maintenance)
    operator = SimpleNamespace(status=status, journal=CallJournal(storage.calls, SystemClock()))
    publisher = SimpleNamespace(latency=lambda: (1, 0.1), acknowledged_bytes=5)
    sources = page_sources(storage, cast(Any, SimpleNamespace(publisher=publisher)), cast(Any, operator))
    looking = Looking(sources)
    page = StatusPage(
        sources=sources,
        looking=looking,
        tails=Tails({"gateway": status.log.recent, "controller": status.log.recent}),
        call=rig.calls.call_here,
        sessions=Sessions(None),
        names=Names(address, frozenset()),
    )
    listener = PageListener(address, page)
    looking.start()
    listener.start()
    wait_until(lambda: listener._server, 10, "it listens")
    yield address
    listener.stop()
    looking.stop()
    rig.database.close()


def get(address: str, path: str) -> bytes:
    with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
        return bytes(answer.read())


def counted() -> dict[str, dict[str, int]]:
    """By thread that serves the page: what the kernel counted of its reads and writes."""
    threads = [t for t in threading.enumerate() if t.name.startswith(("waitress", "page-looking", "status-page"))]
    found = {}
    for thread in threads:
        text = Path(f"/proc/self/task/{thread.native_id}/io").read_text()
        found[thread.name] = {name: int(value) for name, value in (line.split(": ") for line in text.splitlines())}
    return found


def test_looking_writes_nothing_to_the_disk(address: str, storage: Storage) -> None:
    paths = ["/", "/page.js", "/api/picture", "/api/history", "/api/log/gateway", "/metrics", "/healthz", "/readyz"]
    for path in paths:
        get(address, path)
    before, version = counted(), storage.keeper.database.rows("PRAGMA data_version")
    for number in range(LOOKS):
        get(address, paths[number % len(paths)])
    after = counted()
    assert len(before) >= 5
    assert {name: io["write_bytes"] - before[name]["write_bytes"] for name, io in after.items()} == dict.fromkeys(
        before, 0
    )
    written = sum(io["wchar"] - before[name]["wchar"] for name, io in after.items())
    assert written < LOOKS * 16, "the byte by which one thread wakes another, and no more"
    assert storage.keeper.database.rows("PRAGMA data_version") == version


def test_the_picture_of_real_tables(address: str) -> None:
    seen = json.loads(get(address, "/api/picture"))["picture"]
    assert not [name for name, part in seen.items() if isinstance(part, dict) and "error" in part]
    assert seen["status"]["archive"]["pending"] == 2_000
    assert [row["key"] for row in seen["newest"]] == ["<b>", "temperature"]
    assert seen["newest"][1]["value"] == 2_000
    assert len(seen["dead_letters"]) == 1
    assert set(seen["tasks"]) == {lane.value for lane in huey.lanes}


def test_the_tally_says_what_the_counts_say(storage: Storage) -> None:
    counts, tally = storage.maintenance.counts(), storage.maintenance.tally()
    assert tally == {name: counts[name] for name in tally}
    assert tally["pending"] == 2_000
