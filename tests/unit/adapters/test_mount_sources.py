"""The sources of mounts are walked, not trusted: what the controller can write leads the engine nowhere."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from teg.adapters.docker_engine.directories import make_directory
from teg.adapters.docker_engine.mount_sources import checked, walk
from teg.domain.supervision.runtime import MountRefused
from tests.support.mount_games import ALLOWED, REFUSED, GameSite, game_site

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="bind mounts and other owners need root")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[GameSite]:
    with game_site(tmp_path / "site") as made:
        yield made


def prepare(site: GameSite) -> list[str]:
    """As the engine's adapter does before each start; returns the paths that the engine would be given."""
    profile = site.profile()
    for path in (profile.data_path, profile.logs_path):
        make_directory(path, profile.user)
    return [mount.source for mount in checked(profile.all_mounts(), site.private())]


@pytest.mark.parametrize("game", REFUSED)
def test_what_the_controller_could_lead_elsewhere_is_refused(game: str, site: GameSite) -> None:
    play, words = REFUSED[game]
    play(site)
    before = site.tripwires()
    with pytest.raises(MountRefused, match=words):
        prepare(site)
    assert site.tripwires() == before


@pytest.mark.parametrize("game", ALLOWED)
def test_what_only_the_operator_decides_is_fine(game: str, site: GameSite) -> None:
    ALLOWED[game](site)
    before = site.tripwires()
    for source in prepare(site):
        assert os.path.realpath(source) == source, "nothing is left for the engine to resolve"
    assert site.tripwires() == before


def test_the_links_of_a_path_are_resolved_to_the_end(site: GameSite) -> None:
    (site.srv / "one").symlink_to("two")
    (site.srv / "two").symlink_to("../srv/maps/.")
    way = walk(f"{site.srv}/one/../maps")
    assert way.real == str(site.srv / "maps")
    assert str(site.srv) in [path for path, _ in way.passed]


def test_a_sticky_directory_protects_the_names_in_it(site: GameSite) -> None:
    site.srv.chmod(0o1777)
    site.mount((site.srv / "maps", "/maps"))
    assert str(site.srv / "maps") in prepare(site)


def test_a_missing_directory_is_made_for_the_controllers_group(site: GameSite) -> None:
    os.umask(os.umask(0o077))
    make_directory(site.directory / "new" / "data", "")
    assert (site.directory / "new" / "data").stat().st_mode & 0o7777 == 0o2770


def test_a_user_is_given_its_directories_and_files(site: GameSite) -> None:
    (site.data / "communication_queue.db").touch()
    for _ in range(2):
        make_directory(site.data, "4711:4712")
    for path in (site.data, site.data / "communication_queue.db"):
        assert (path.stat().st_uid, path.stat().st_gid) == (4711, 4712)
    assert site.data.stat().st_mode & 0o7777 == 0o2770
