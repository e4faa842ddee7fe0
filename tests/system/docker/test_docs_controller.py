"""The controller of docs/controller.md really runs, and the tables there say what the program says."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from teg.adapters.docker_engine import DockerEngine
from teg.adapters.inbox.mailbox import Inbox
from teg.domain.supervision.container_profile import ControllerProfile
from teg.domain.supervision.image_ids import ImageIds
from teg.domain.supervision.policy import History
from teg.domain.supervision.report import Condition, View, attributes, exit_telemetry
from tests.support.engine import BASE_IMAGE, Engine
from tests.support.running import wait_until
from tests.support.states import MemoryState

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "controller.md").read_text()
BLOCKS = dict(re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL))


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "docker"
    directory.mkdir()
    (directory / "main.py").write_text(BLOCKS["python"])
    (directory / "teg_controller.py").write_bytes((ROOT / "controller_client" / "teg_controller.py").read_bytes())
    dockerfile, replaced = re.subn(r"FROM \S+", f"FROM {BASE_IMAGE}", BLOCKS["dockerfile"])
    assert replaced == 1
    (directory / "Dockerfile").write_text(dockerfile)
    return directory


@pytest.fixture
def runtime(clean_engine: Engine, tmp_path: Path) -> Iterator[DockerEngine]:
    profile = ControllerProfile(data_path=tmp_path / "data", logs_path=tmp_path / "logs")
    made = DockerEngine(clean_engine.host, profile, ImageIds(MemoryState()))
    yield made
    made.close()


@pytest.mark.docker
def test_the_example_measures_sends_heartbeats_and_hears_sigterm(
    runtime: DockerEngine, context: Path, tmp_path: Path
) -> None:
    runtime.build("v1", context, "./Dockerfile", lambda: False)
    runtime.start("v1")
    inbox = Inbox(tmp_path / "data" / "communication_queue.db")
    wait_until(inbox.has_rows, 20, f"a measurement; it says {runtime.logs(20)}")
    wait_until(lambda: inbox.last_heartbeat_ms() is not None, 10, "a heartbeat")
    runtime.stop(30)
    assert runtime.observe().exit_code == 0
    inbox.close()


def test_every_state_and_key_is_in_the_page() -> None:
    told = [*attributes(View(), History(), None), *exit_telemetry(History(exit_code=1), [])]
    named = set(re.findall(r"`([a-z_ ]+)`", PAGE))
    assert {*told, "controller_restart_reason", "controller_memory_bytes"} <= named
    assert {condition.value for condition in Condition if condition is not Condition.UNKNOWN} <= named
