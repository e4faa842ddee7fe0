"""A process that lives a device's life on command, each in a child of its own that can be traced, killed, refused.

Commands on stdin, one a line: `<folder> <scenario>`. The child stops itself before the first step, so that strace can
be attached and counts from there; the exit of the child is printed. What is not available in a life stays for the next.
"""

import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import tasks.huey_app
from tasks.lanes import Lane
from tasks.queue import huey
from tasks.services import Services
from tasks.telemetry import archive_records, publish_records
from teg.domain.errors import Unavailable
from tests.support.legacy import Reference
from tests.support.storage_life import Life, Server, produce, read_in_this_process

ROWS = range(1, 25)
#: In the take-over: these were archived by the reference and delivered, the later ones of ROWS were waiting.
DELIVERED_BEFORE = range(1, 9)
NONSENSE = 2


def ingest(life: Life, _: Path) -> None:
    life.patiently(life.ingest)


def publish(life: Life, _: Path) -> None:
    life.patiently(life.publish)
    life.patiently(life.prove)


def take_over(life: Life, _: Path) -> None:
    life.patiently(life.take_over)


def salvage(life: Life, _: Path) -> None:
    life.patiently(life.salvage)


def rescue(life: Life, folder: Path) -> None:
    """Somebody takes the database away while it is open."""
    with suppress(OSError):
        shutil.rmtree(folder / "taken", ignore_errors=True)
        (folder / "taken").mkdir()
        (folder / "data" / "gateway.db").rename(folder / "taken" / "gateway.db")
    life.patiently(life.ingest)


def queue(life: Life, folder: Path) -> None:
    """Archiving and publishing through the queue; whatever cannot be queued runs from memory, or at the next sweep."""
    services = cast(Services, SimpleNamespace(recorder=life.recorder, publisher=life.publisher, stopping=_Never()))
    with suppress(Unavailable):
        huey.open(f"sqlite://{folder}/huey_data/huey.db")
    huey.tended = True
    huey.serve(Lane.TELEMETRY)
    with huey.serving(services):
        for _ in range(4):
            with suppress(Unavailable):
                huey.tend_storage()
                huey.enqueue_due()
            for task in (archive_records, publish_records):
                with suppress(Unavailable):
                    task()
            while (found := huey.dequeue()) is not None:
                huey.execute(found)
    huey.close()


def finish(life: Life, _: Path) -> None:
    life.settle()


class _Never:
    def is_set(self) -> bool:
        return False


SCENARIOS: dict[str, Callable[[Life, Path], None]] = {
    each.__name__: each for each in (ingest, publish, take_over, salvage, rescue, queue, finish)
}


def prepare(folder: Path, scenario: str) -> None:
    """The state in which the life of `scenario` begins: always the same files."""
    folder.mkdir()
    if scenario == "take_over":
        _prepare_reference(folder)
        return
    produce(folder_with_controller(folder), ROWS, NONSENSE)
    life = Life(folder, Server(folder / "server"))
    if scenario in ("publish", "salvage"):
        life.ingest()
    life.close()
    if scenario in ("ingest", "queue"):  # the first life of all: with the creation of everything
        shutil.rmtree(folder / "data")
        (folder / "data").mkdir()
    elif scenario == "salvage":
        _damage(folder / "data" / "gateway.db")


def folder_with_controller(folder: Path) -> Path:
    (folder / "controller").mkdir(exist_ok=True)
    return folder


def _prepare_reference(folder: Path) -> None:
    for name in ("old", "controller", "data"):
        (folder / name).mkdir()
    reference = Reference(folder / "old", folder / "controller" / "communication_queue.db")
    for number in DELIVERED_BEFORE:
        reference.archived(number)
    for number in ROWS[len(DELIVERED_BEFORE) :]:
        reference.archived(number)
        reference.queued(number)
    for _ in range(NONSENSE):
        reference.inbox.execute("INSERT INTO pending_mqtt_messages (type, message) VALUES ('measurement', 'nonsense')")
    reference.logged("a line")
    reference.close()


def _damage(path: Path) -> None:
    """The first page: nothing can be read through SQLite any more."""
    with path.open("r+b") as file:
        file.write(b"\xa5" * 1024)


def work(folder: Path, scenario: str) -> int:
    """Whatever ends a life by itself is a defect: its traceback is the test's."""
    try:
        life = Life(folder, Server(folder / "server"))
        SCENARIOS[scenario](life, folder)
        with suppress(Unavailable):
            life.close()
    except BaseException:  # noqa: BLE001 - told, and the status says so
        traceback.print_exc()
        return 70
    return 0


def main() -> None:
    read_in_this_process()
    for module, name in ((tasks.huey_app, "IDLE_WAIT_S"), (tasks.huey_app, "DOWN_WAIT_S")):
        setattr(module, name, 0.0)
    for line in sys.stdin:
        folder, scenario = line.split()
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
            os._exit(work(Path(folder), scenario))
        os.waitpid(child, os.WUNTRACED)
        print("stopped", child, flush=True)
        print("ended", os.waitpid(child, 0)[1], flush=True)


if __name__ == "__main__":
    main()
