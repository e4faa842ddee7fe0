"""The container runtime on a real Docker Engine."""

import time
from pathlib import Path
from typing import Any

from teg.adapters.docker_engine import DockerEngine
from teg.domain.supervision.container_profile import ControllerProfile
from teg.domain.supervision.image_ids import ImageIds
from teg.domain.supervision.runtime import CONTAINER_NAME
from tests.support.engine import Engine, closing_client, write_context
from tests.support.running import wait_until
from tests.support.states import MemoryState

SLEEP = (
    "import signal, sys, time\n"
    "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
    "print('up')\n"
    "while True: time.sleep(60)\n"
)


MONTHS_LATER_MS = int(time.time() * 1000) + 90 * 86_400_000


def make_runtime(at: Engine, tmp_path: Path, **options: Any) -> DockerEngine:
    profile = ControllerProfile(data_path=tmp_path / "data", logs_path=tmp_path / "logs", **options)
    return DockerEngine(at.host, profile, ImageIds(MemoryState()))


def run(runtime: DockerEngine, tmp_path: Path, script: str, version: str = "v1") -> list[str]:
    """Build and start `script`; its output once it has ended or said something."""
    runtime.build(version, write_context(tmp_path / f"context-{version}", script), "./Dockerfile", lambda: False)
    runtime.start(version)
    wait_until(lambda: runtime.logs(1) or not runtime.observe().running, 15, "output of the controller")
    return runtime.logs(100)


def inspect(at: Engine, name: str = CONTAINER_NAME) -> dict[str, Any]:
    with closing_client(at.client) as client:
        return dict(client.inspect_container(name))


def assert_untouched(at: Engine, foreign: dict[str, str]) -> None:
    with closing_client(at.client) as client:
        assert client.inspect_container("foreign_stopped")["Id"] == foreign["container"]
        for name in ("image", "dangling"):
            assert client.inspect_image(foreign[name])["Id"] == foreign[name]
        tags = set(client.inspect_image(foreign["image"])["RepoTags"])
        assert {"foreign/thing:1", "foreign/dangling:1"} <= tags
