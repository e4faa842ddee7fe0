"""Somebody touches gateway.db while it is in use: what was committed is in the file that the next life finds."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from teg.adapters.inbox.mailbox import Inbox
from teg.domain.errors import Unavailable
from teg.domain.telemetry.ingest import Recorder
from tests.support.archives import AT_THE_NAMES, Archive, record
from tests.support.running import ControllerInbox, wait_until


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    archive = Archive(tmp_path / "data")
    yield archive
    archive.close()


@pytest.mark.parametrize("checkpointed", [False, True], ids=["in the log", "in the file"])
@pytest.mark.parametrize("what", AT_THE_NAMES.values(), ids=AT_THE_NAMES.keys())
def test_names_that_lead_elsewhere_lose_nothing(
    archive: Archive, what: Callable[[Path], object], checkpointed: bool
) -> None:
    archive.store(*range(400))
    archive.deliver(range(1, 101))
    if checkpointed:
        archive.database.checkpoint()
    archive.store(*range(400, 500))
    what(archive.path)
    archive.store(*range(500, 600))  # ends well: from here on the inbox may forget them
    archive.deliver(range(101, 201))
    after = archive.after_kill()
    assert after.numbers() == list(range(600))
    assert after.pending() == list(range(200, 600))
    after.assert_account()
    assert not after.salvage.due
    after.close()


@pytest.mark.parametrize("what", AT_THE_NAMES.values(), ids=AT_THE_NAMES.keys())
def test_it_is_noticed_before_anything_is_deleted_elsewhere(
    archive: Archive, what: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    archive.store(*range(100))
    assert archive.database.sound()
    what(archive.path)
    harmless = "second-name" in {path.name for path in archive.path.parent.glob("*")}
    assert archive.database.sound() is harmless
    archive.database.verify()
    assert archive.database.sound()
    with closing(archive.after_kill()) as after:
        assert after.numbers() == list(range(100))
    assert bool(caplog.records) is not harmless


def test_other_threads_go_on_in_the_sound_file(archive: Archive) -> None:
    """Each thread has a connection of its own, to the file as it was when it first looked."""
    archive.store(1)
    go, done = threading.Event(), threading.Event()
    failed: list[BaseException] = []

    def other() -> None:
        try:
            archive.store(2)
            done.set()
            assert go.wait(10)
            for number in range(10, 20):
                archive.store(number)
        except BaseException as error:
            failed.append(error)
            raise

    thread = threading.Thread(target=other)
    thread.start()
    assert done.wait(10)
    archive.path.unlink()
    archive.store(3)
    go.set()
    thread.join()
    assert not failed
    with closing(archive.after_kill()) as after:
        assert after.numbers() == [1, 2, 3, *range(10, 20)]


def test_a_new_thread_does_not_open_a_strangers_file(archive: Archive) -> None:
    archive.store(1)
    AT_THE_NAMES["database replaced by an older one"](archive.path)
    thread = threading.Thread(target=lambda: archive.store(2))
    thread.start()
    thread.join()
    with closing(archive.after_kill()) as after:
        assert after.numbers() == [1, 2]


def test_again_and_again(archive: Archive) -> None:
    numbers = []
    for turn, what in enumerate([*AT_THE_NAMES.values()] * 2):
        if "second-name" in {path.name for path in archive.path.parent.glob("*")}:
            (archive.path.parent / "second-name").unlink()
        for name in ("elsewhere", "moved-directory"):
            for folder in (archive.path.parent / name, archive.path.parent.with_name(name)):
                if folder.exists():
                    folder.rename(folder.with_name(f"{name}-{turn}"))
        archive.store(turn)
        numbers.append(turn)
        what(archive.path)
    archive.store(1000)
    with closing(archive.after_kill()) as after:
        assert after.numbers() == [*numbers, 1000]


def test_without_room_for_the_rescue_the_open_file_is_kept(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    archive.store(*range(100))
    archive.path.unlink()
    copy = archive.path.with_name("gateway.db.rescue")
    copy.mkdir()  # no file can be made here now
    for number in (100, 101):
        with pytest.raises(Unavailable):
            archive.store(number)
    copy.rmdir()
    archive.database.verify()
    with closing(archive.after_kill()) as after:
        assert after.numbers() == list(range(100))


def test_ids_go_on_after_a_rescue(archive: Archive) -> None:
    """An acknowledgement that was on the way marks the row it was for."""
    archive.store(0, 1, 2)
    archive.path.unlink()
    archive.store(3)
    assert archive.pending_rows() == [(1, 0), (2, 1), (3, 2), (4, 3)]


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("step", range(12))
def test_a_kill_at_any_step_of_the_rescue_loses_nothing(
    archive: Archive, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step is a change of a name; the files at the names are copied in that moment."""
    archive.store(*range(100))
    AT_THE_NAMES["database replaced by its copy"](archive.path)
    archive.path.write_bytes(b"a stranger's")
    with_kill(monkeypatch, step)
    with suppress(Killed):
        archive.store(100)
    monkeypatch.undo()
    with closing(archive.after_kill()) as after:
        after.salvage.run()
        if (archive.path.parent / "gateway.db.whole").exists() or step > 2:
            assert set(after.numbers()) >= set(range(100))
        assert len(after.numbers()) == len(set(after.numbers()))


@pytest.mark.parametrize("step", range(12))
def test_a_kill_at_any_step_of_a_quarantine_loses_nothing(
    archive: Archive, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.store(*range(100))
    archive.database.checkpoint()
    archive.store(*range(100, 200))
    with archive.path.open("r+b") as file:
        file.write(b"\x5a" * 100)
    with_kill(monkeypatch, step)
    with suppress(Killed, Unavailable):
        archive.store(200)
    monkeypatch.undo()
    with closing(archive.after_kill()) as after:
        after.salvage.run()
        assert after.numbers() == list(range(200))


def with_kill(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """The `step`-th renaming, linking or unlinking, and whatever comes after it, does not happen any more."""
    left = [step]

    def counted(name: str) -> None:
        original = getattr(Path, name)

        def change(self: Path, *arguments: object, **options: object) -> object:
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return original(self, *arguments, **options)

        monkeypatch.setattr(Path, name, change)

    for name in ("rename", "hardlink_to", "unlink", "write_text", "mkdir"):
        counted(name)


def test_rows_that_waited_for_a_locked_inbox_leave_it_only_while_the_archive_has_them(
    archive: Archive, tmp_path: Path
) -> None:
    path = tmp_path / "communication_queue.db"
    with closing(ControllerInbox(path)) as controller, closing(Inbox(path)) as inbox:
        controller.insert_many(record(number).message for number in range(1, 11))
        controller.connection.execute("BEGIN IMMEDIATE")  # it can be read, and nothing can be removed
        recorder = Recorder(inbox, archive.table, lambda: None)
        while not archive.numbers():
            recorder.record_batch()
        assert archive.numbers() == list(range(1, 11))
        archive.path.unlink()
        archive.path.with_name("gateway.db.rescue").mkdir()  # and no room to save them
        controller.connection.execute("COMMIT")
        with pytest.raises(Unavailable):
            recorder.record_batch()
        assert controller.count() == 10
        archive.path.with_name("gateway.db.rescue").rmdir()
        recorder.record_batch()
        assert controller.count() == 0
    with closing(archive.after_kill()) as after:
        assert after.numbers() == list(range(1, 11))


class NotedLock:
    """A lock that tells when another thread than its maker's asks for it."""

    def __init__(self) -> None:
        self._lock, self._maker, self.asked = threading.Lock(), threading.get_ident(), threading.Event()

    def acquire(self, timeout: float = -1) -> bool:
        if threading.get_ident() != self._maker:
            self.asked.set()
        return self._lock.acquire(timeout=timeout)

    def release(self) -> None:
        self._lock.release()


def test_a_thread_that_connects_in_mid_checkpoint_takes_our_own_writing_for_nobody_elses(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The main file changes while a checkpoint runs; that it was us is known at its end."""
    archive.store(*range(400))
    lock, read = NotedLock(), threading.Event()
    monkeypatch.setattr(archive.database, "_writing", lock)
    assert archive.database._files is not None
    note = archive.database._files.checkpointed

    def connects() -> None:
        archive.database.rows("SELECT count(*) FROM record")
        read.set()

    newcomer = threading.Thread(target=connects)

    def before_it_is_noted() -> None:
        newcomer.start()
        wait_until(lambda: lock.asked.is_set() or read.is_set(), 10, "the newcomer waits, or is through")
        note()

    monkeypatch.setattr(archive.database._files, "checkpointed", before_it_is_noted)
    archive.database.checkpoint()
    newcomer.join(10)
    assert read.is_set()
    assert archive.numbers() == list(range(400))
    assert not caplog.records, "nobody touched anything"
