"""The promise of `ControllerRuntime`, kept by the fake that other tests use, by a plain process and by real Docker."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from teg.adapters.docker_engine import DockerEngine
from teg.adapters.process_runtime import ProcessRuntime
from teg.domain.errors import Refused
from teg.domain.supervision.container_profile import ControllerProfile
from teg.domain.supervision.image_ids import ImageIds
from teg.domain.supervision.runtime import (
    ABSENT,
    CONTAINER_NAME,
    Cancelled,
    ControllerRuntime,
    ImageMissing,
    Observation,
    StartFailed,
)
from tests.support.controllers import RuntimeInMemory
from tests.support.engine import Engine, closing_client, write_context
from tests.support.ota_world import Effects, FakeClock, FakeEngine
from tests.support.running import wait_until
from tests.support.states import MemoryState

SCRIPTS = {
    "runs": "import signal, sys, time\n"
    "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
    "print('hello', __import__('os').environ['TEG_CONTROLLER_VERSION'])\n"
    "while True: time.sleep(60)\n",
    "exits": "print('hello')\nprint('bye')\nraise SystemExit(3)\n",
    "stubborn": "import signal, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "print('hello')\n"
    "while True: time.sleep(60)\n",
}
CANNOT_START = 'FROM teg-test-base:1\nCOPY main.py /main.py\nUSER nobody-of-this-name\nCMD ["python3"]\n'


class Harness:
    """One kind of runtime over one outside; `again` is the same outside seen by a gateway started anew."""

    def __init__(self, directory: Path, make: Callable[[str], ControllerRuntime]) -> None:
        self.directory = directory
        self._make = make
        self.made: list[ControllerRuntime] = []
        self.runtime = self.again()

    def again(self, variant: str = "A") -> ControllerRuntime:
        self.made.append(self._make(variant))
        return self.made[-1]

    def provide(self, version: str, behaviour: str) -> None:
        context = write_context(
            self.directory / version,
            SCRIPTS.get(behaviour, "\n"),
            CANNOT_START if behaviour == "cannot" else "",
        )
        (context / "behaviour").write_text(behaviour)
        self.runtime.build(version, context, "./Dockerfile", lambda: False)

    def running(self, version: str, behaviour: str = "runs") -> Observation:
        self.provide(version, behaviour)
        self.runtime.start(version)
        wait_until(lambda: self.runtime.logs(1), 10, "its first line")
        return self.runtime.observe()

    def ended(self, version: str = "v1") -> Observation:
        self.provide(version, "exits")
        self.runtime.start(version)
        wait_until(lambda: not self.runtime.observe().running, 10, "its end")
        return self.runtime.observe()

    def pause(self) -> None: ...

    def close(self) -> None: ...


class InMemory(Harness):
    def __init__(self, directory: Path, outside: RuntimeInMemory) -> None:

        def make(variant: str) -> ControllerRuntime:
            outside.set_profile(variant)
            return outside

        super().__init__(directory, make)


class AsProcess(Harness):
    def __init__(self, directory: Path) -> None:
        def make(variant: str) -> ControllerRuntime:
            return ProcessRuntime(
                f"{sys.executable} -u main.py",
                directory / "runtime",
                data_path=directory / "data",
                logs_path=directory / "logs",
                environment=(f"VARIANT={variant}",),
            )

        super().__init__(directory, make)

    def pause(self) -> None:
        run_id = self.runtime.observe().run_id
        assert run_id is not None
        os.kill(int(run_id.partition("@")[0]), signal.SIGSTOP)
        wait_until(lambda: self.runtime.observe().paused, 5, "the stopped state")

    def close(self) -> None:
        self.runtime.stop(0)


class InDocker(Harness):
    def __init__(self, directory: Path, real: Engine) -> None:
        self.engine = real
        ids = ImageIds(MemoryState())

        def make(variant: str) -> ControllerRuntime:
            profile = ControllerProfile(
                data_path=directory / "data", logs_path=directory / "logs", environment=(f"VARIANT={variant}",)
            )
            return DockerEngine(real.host, profile, ids)

        super().__init__(directory, make)

    def pause(self) -> None:
        with closing_client(self.engine.client) as client:
            client.pause(CONTAINER_NAME)


@pytest.fixture(params=["memory", "memory of updates", "process", pytest.param("docker", marks=pytest.mark.docker)])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


#: What only an outside that is really there can show.
real = pytest.mark.parametrize("kind", ["process", pytest.param("docker", marks=pytest.mark.docker)])


@pytest.fixture
def harness(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Harness]:
    made: Harness
    if kind == "memory":
        made = InMemory(tmp_path, RuntimeInMemory())
    elif kind == "memory of updates":
        made = InMemory(tmp_path, FakeEngine(FakeClock(), Effects()))
    elif kind == "process":
        made = AsProcess(tmp_path)
    else:
        made = InDocker(tmp_path, request.getfixturevalue("clean_engine"))
    yield made
    made.close()
    for runtime in made.made:
        runtime.close()


def test_nothing_is_there_at_first(harness: Harness) -> None:
    assert harness.runtime.observe() == ABSENT
    assert harness.runtime.logs(10) == []
    assert harness.runtime.memory_bytes() is None
    harness.runtime.stop(1)  # and that is no error


def test_a_version_that_was_never_obtained_cannot_start(harness: Harness) -> None:
    assert not harness.runtime.has_image("v1")
    with pytest.raises(ImageMissing):
        harness.runtime.start("v1")
    assert harness.runtime.observe() == ABSENT


def test_start_runs_the_version(harness: Harness, kind: str) -> None:
    seen = harness.running("v1")
    assert harness.runtime.has_image("v1")
    assert seen.exists and seen.running and not seen.paused
    assert seen.version == "v1" and seen.runs("v1") and not seen.runs("v2")
    assert seen.profile == harness.runtime.profile()
    assert seen.exit_code is None and seen.run_id
    assert seen.started_ms is not None
    if kind in ("process", "docker"):
        assert abs(time.time() * 1000 - seen.started_ms) < 60_000
    assert harness.runtime.logs(10) == ["hello v1"]
    assert (harness.runtime.memory_bytes() or 0) > 100_000


def test_start_of_what_runs_already_changes_nothing(harness: Harness) -> None:
    before = harness.running("v1")
    harness.runtime.start("v1")
    assert harness.runtime.observe().run_id == before.run_id


def test_start_replaces_another_version(harness: Harness) -> None:
    before = harness.running("v1")
    after = harness.running("v2")
    assert after.runs("v2") and after.run_id != before.run_id


def test_start_replaces_a_container_with_other_settings(harness: Harness) -> None:
    before = harness.running("v1")
    changed = harness.again("B")
    changed.start("v1")
    after = changed.observe()
    assert after.runs("v1") and after.run_id != before.run_id and after.profile != before.profile


def test_a_missing_version_does_not_stop_the_one_that_runs(harness: Harness) -> None:
    before = harness.running("v1")
    with pytest.raises(ImageMissing):
        harness.runtime.start("v2")
    assert harness.runtime.observe().run_id == before.run_id
    assert harness.runtime.observe().running


def test_an_exit_leaves_its_code_and_its_last_words(harness: Harness) -> None:
    seen = harness.ended()
    assert seen.exists and not seen.running and seen.exit_code == 3
    assert seen.version == "v1"
    assert harness.runtime.logs(1) == ["bye"]
    assert harness.runtime.memory_bytes() is None


def test_an_ended_controller_starts_again_as_a_new_run(harness: Harness) -> None:
    before = harness.ended()
    after = harness.running("v1")
    assert after.running and after.run_id != before.run_id and after.exit_code is None


def test_stop_ends_it_and_can_be_repeated(harness: Harness) -> None:
    before = harness.running("v1")
    harness.runtime.stop(10)
    seen = harness.runtime.observe()
    assert not seen.running and seen.exit_code == 0 and seen.run_id == before.run_id
    harness.runtime.stop(10)
    harness.runtime.start("v1")
    assert harness.runtime.observe().runs("v1")


def test_what_ignores_the_polite_request_is_killed(harness: Harness) -> None:
    harness.running("v1", "stubborn")
    harness.runtime.stop(1)
    seen = harness.runtime.observe()
    assert not seen.running and seen.exit_code == 137


@real
def test_a_paused_controller_is_seen_as_such_and_can_be_stopped(harness: Harness) -> None:
    harness.running("v1")
    harness.pause()
    assert harness.runtime.observe().paused and harness.runtime.observe().running
    harness.runtime.stop(5)
    assert not harness.runtime.observe().running


def test_a_gateway_started_anew_finds_it(harness: Harness) -> None:
    before = harness.running("v1")
    again = harness.again()
    assert again.observe() == before
    again.stop(10)
    assert not again.observe().running
    assert again.observe().run_id == before.run_id


@pytest.mark.parametrize("kind", ["memory", "memory of updates", pytest.param("docker", marks=pytest.mark.docker)])
def test_a_version_that_the_engine_cannot_start_leaves_nothing_running(harness: Harness) -> None:
    harness.running("v1")
    harness.provide("v2", "cannot")
    with pytest.raises(StartFailed, match=r"no such|unable to find user"):
        harness.runtime.start("v2")
    assert not harness.runtime.observe().running
    harness.runtime.start("v1")
    assert harness.runtime.observe().runs("v1")


def test_a_build_can_be_cancelled(harness: Harness) -> None:
    context = write_context(harness.directory / "v1", "", "FROM teg-test-base:1\nRUN sleep 600\n")
    (context / "behaviour").write_text("runs")
    with pytest.raises(Cancelled):
        harness.runtime.build("v1", context, "./Dockerfile", lambda: True)
    assert not harness.runtime.has_image("v1")


def test_a_build_without_context_is_refused(harness: Harness) -> None:
    with pytest.raises(Refused):
        harness.runtime.build("v1", harness.directory / "missing", "./Dockerfile", lambda: False)


def test_old_versions_go_but_not_what_is_kept_or_used(harness: Harness) -> None:
    for version in ("v1", "v2", "v3"):
        harness.provide(version, "runs")
    harness.runtime.start("v3")
    months_later_ms = int(time.time() * 1000) + 90 * 86_400_000
    harness.runtime.remove_old_images(["v1"], months_later_ms)
    assert [harness.runtime.has_image(v) for v in ("v1", "v2", "v3")] == [True, False, True]
    assert harness.runtime.observe().runs("v3")


@real
def test_young_versions_stay(harness: Harness) -> None:
    for version in ("v1", "v2"):
        harness.provide(version, "runs")
    harness.runtime.remove_old_images(["v2"], int(time.time() * 1000))
    assert harness.runtime.has_image("v1")


def until_quiet(runtime: ControllerRuntime) -> None:
    """Take in every change so far; a runtime that tells one for ever fails here."""
    for _ in range(20):
        if not runtime.wait_for_change(0.3):
            return
    pytest.fail("the same change is told again and again")


def test_changes_are_noticed_also_between_two_waits(harness: Harness) -> None:
    harness.provide("v1", "exits")
    until_quiet(harness.runtime)
    harness.runtime.start("v1")
    wait_until(lambda: not harness.runtime.observe().running, 10, "its end")
    assert harness.runtime.wait_for_change(20)
    until_quiet(harness.runtime)
    assert not harness.runtime.wait_for_change(0.2)


@real
def test_an_end_is_noticed_while_waiting(harness: Harness) -> None:
    harness.running("v1")
    until_quiet(harness.runtime)
    found: list[Any] = []
    waiting = threading.Thread(target=lambda: found.append(harness.runtime.wait_for_change(30)))
    waiting.start()
    harness.again().stop(10)
    waiting.join(20)
    assert found == [True]


@real
def test_close_ends_a_wait(harness: Harness) -> None:
    harness.running("v1")
    until_quiet(harness.runtime)
    waiting = threading.Thread(target=lambda: harness.runtime.wait_for_change(300), daemon=True)
    waiting.start()
    wait_until(lambda: _closed(harness.runtime, waiting), 20, "the end of the wait")


def _closed(runtime: ControllerRuntime, waiting: threading.Thread) -> bool:
    """Close may come before the wait has begun; then the next one finds it."""
    runtime.close()
    waiting.join(0.2)
    return not waiting.is_alive()
