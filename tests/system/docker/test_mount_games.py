"""Mount and directory games against a real engine: no file of the host that is not the controller's ever changes."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from teg.adapters.docker_engine import DockerEngine
from teg.domain.supervision.image_ids import ImageIds
from teg.domain.supervision.runtime import MountRefused
from tests.support.engine import Engine, clean_engine, engine, write_context  # noqa: F401 - fixtures
from tests.support.mount_games import ALLOWED, REFUSED, GameSite, game_site
from tests.support.running import wait_until
from tests.support.states import MemoryState

pytestmark = [pytest.mark.docker, pytest.mark.skipif(os.geteuid() != 0, reason="bind mounts need root")]

#: Does with every mount what a controller could: writes, links, changes of mode; and swaps what is its own. A second
#: name of anything but its own files is never had: what the inbox's reader relies on.
ATTACK = """\
import errno, os, pathlib
def link(path):
    try:
        os.link(path, "/root/data/second")
    except OSError as error:
        assert error.errno in (errno.EXDEV, errno.EPERM, errno.EACCES, errno.ENOENT), error
    else:
        print("a second name of", path, flush=True)
        os.unlink("/root/data/second")
kernel = ("proc", "sysfs", "cgroup", "tmpfs", "mqueue", "devpts", "overlay", "shm")
for line in open("/proc/self/mounts"):
    target, kind = line.split()[1:3]
    if kind in kernel or target.startswith(("/etc/", "/dev", "/sys", "/proc", "/sbin/docker-init")):
        continue
    for path in [target, *(os.path.join(where, name) for where, _, names in os.walk(target) for name in names)]:
        for attempt in (
            lambda: os.chmod(path, 0o777),
            lambda: os.write(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK), b"owned"),
            lambda: open(path + "/owned", "w").write("owned"),
        ):
            try:
                attempt()
            except OSError:
                pass
        if not path.startswith("/root/data"):
            link(path)
for path in ("/etc/hosts", "/etc/hostname", "/etc/passwd", "/proc/self/mounts", "/sbin/docker-init"):
    link(path)
for name in ("logs", "sub", "communication_queue.db"):
    path = pathlib.Path("/root/data") / name
    try:
        path.rmdir()
    except OSError:
        pass
    try:
        path.symlink_to("SHADOW")
    except OSError:
        pass
print("done", flush=True)
"""


#: One memory for all games: the image is built once.
IDS = ImageIds(MemoryState())


def engine_of(site: GameSite, at: Engine) -> DockerEngine:
    return DockerEngine(at.host, site.profile(), IDS, private=site.private())


@pytest.fixture(scope="module")
def prepared(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:  # noqa: F811
    """One image for all games: each takes milliseconds then."""
    if engine.owned:
        engine.start()
    engine.clean()
    directory = tmp_path_factory.mktemp("games")
    with game_site(directory / "first") as site:
        runtime = engine_of(site, engine)
        runtime.build("v1", write_context(directory / "context", ATTACK), "./Dockerfile", lambda: False)
        runtime.close()
    yield engine
    engine.clean()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[GameSite]:
    with game_site(tmp_path / "site") as made:
        yield made


def attack(runtime: DockerEngine) -> None:
    runtime.start("v1")
    wait_until(lambda: not runtime.observe().running, 30, "the end of the attack")
    assert runtime.logs(1) == ["done"], runtime.logs(20)


@pytest.mark.parametrize("game", REFUSED)
def test_a_refused_mount_starts_nothing(game: str, site: GameSite, prepared: Engine) -> None:
    REFUSED[game][0](site)
    before = site.tripwires()
    runtime = engine_of(site, prepared)
    with pytest.raises(MountRefused):
        runtime.start("v1")
    assert not runtime.observe().running
    assert site.tripwires() == before


@pytest.mark.parametrize("game", ALLOWED)
def test_an_attack_stays_in_its_own_directories(game: str, site: GameSite, prepared: Engine) -> None:
    ALLOWED[game](site)
    before = site.tripwires()
    runtime = engine_of(site, prepared)
    for _ in range(2):  # the second start meets what the first one left
        attack(runtime)
        assert site.tripwires() == before


def test_logs_replaced_by_a_link_are_not_mounted_at_the_next_start(site: GameSite, prepared: Engine) -> None:
    """The attack of the first version: logs inside the shared directory, as its default was."""
    before = site.tripwires()
    runtime = engine_of(site, prepared)
    attack(runtime)
    link = site.data / "logs"
    assert link.is_symlink(), "the attack put it there"
    link.unlink()
    link.symlink_to(site.host)
    site.options["logs_path"] = link
    nested = engine_of(site, prepared)
    with pytest.raises(MountRefused):
        nested.start("v1")
    assert site.tripwires() == before
