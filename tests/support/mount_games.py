"""What a controller, or settings made in haste, may do with mounts and directories; host files are tripwires."""

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from teg.domain.supervision.container_profile import ControllerProfile, Mount


@dataclass
class GameSite:
    """`host` is what no container may ever touch; `data` and `logs` are the controller's; `srv` the operator's."""

    directory: Path
    options: dict[str, Any] = field(default_factory=dict)
    bound: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("host", "srv", "srv/maps", "data", "data/sub", "logs", "private"):
            (self.directory / name).mkdir(parents=True)
            (self.directory / name).chmod(0o755)
        (self.host / "shadow").write_text("root:secret")
        (self.host / "shadow").chmod(0o600)
        (self.srv / "maps" / "map").write_text("a map")

    @property
    def host(self) -> Path:
        return self.directory / "host"

    @property
    def srv(self) -> Path:
        return self.directory / "srv"

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def logs(self) -> Path:
        return self.directory / "logs"

    def mount(self, *entries: tuple[Path | str, str]) -> None:
        found = [Mount(str(source), target, read_only=False) for source, target in entries]
        self.options["mounts"] = (*self.options.get("mounts", ()), *found)

    def profile(self) -> ControllerProfile:
        return ControllerProfile(**{"data_path": self.data, "logs_path": self.logs, **self.options})

    def private(self) -> list[tuple[str, Path]]:
        return [("the gateway's", self.directory / "private")]

    def tripwires(self) -> Mapping[str, tuple[object, ...]]:
        """What everything outside of the controller's directories is: any write, link or change of mode shows."""
        found = {}
        for top in ("host", "private"):
            for path in (self.directory / top, *(self.directory / top).rglob("*")):
                status = path.lstat()
                content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
                found[str(path)] = (status.st_mode, status.st_uid, status.st_gid, status.st_ino, content)
        return found

    def bind(self, source: Path, target: Path) -> None:
        target.mkdir()
        subprocess.run(["mount", "--bind", source, target], check=True)
        self.bound.append(target)


@contextmanager
def game_site(directory: Path) -> Iterator[GameSite]:
    site = GameSite(directory)
    try:
        yield site
    finally:
        for target in reversed(site.bound):
            subprocess.run(["umount", target], check=True)


def _swap(path: Path, target: Path) -> Path:
    """As the controller does it: the directory that was there makes place for a link."""
    path.rmdir()
    path.symlink_to(target)
    return path


def _link(path: Path, target: Path) -> Path:
    path.symlink_to(target)
    return path


def _logs_swapped(site: GameSite) -> None:
    """C1: the logs inside the shared directory, replaced by a link between two starts."""
    site.options["logs_path"] = _swap(site.data / "sub", site.host)


def _open_parent(site: GameSite) -> None:
    site.srv.chmod(0o777)
    site.mount((site.srv / "maps", "/maps"))


def _both_inside(site: GameSite) -> None:
    site.mount((site.srv, "/srv"), (site.srv / "maps", "/maps"))


def _hop(site: GameSite) -> None:
    """The last link is in the operator's directory, the first one too; the one between is the controller's."""
    (site.data / "hop").symlink_to(site.host)
    site.mount((_link(site.srv / "nice", site.data / "hop"), "/maps"))


def _dots(site: GameSite) -> None:
    site.mount((f"{site.data}/sub/../../host", "/maps"))


def _loop(site: GameSite) -> None:
    (site.srv / "a").symlink_to(site.srv / "b")
    site.mount((_link(site.srv / "b", site.srv / "a"), "/maps"))


def _bound_sub(site: GameSite) -> None:
    """Neither the name nor the inode of the bound directory has to do with the shared one."""
    site.bind(site.data / "sub", site.srv / "bound")
    (site.data / "sub" / "deep").mkdir()
    site.mount((site.srv / "bound" / "deep", "/maps"))


def _data_became_link(site: GameSite) -> None:
    site.data.rename(site.directory / "data-before")
    site.data.symlink_to(site.host)


def _data_with_user_became_link(site: GameSite) -> None:
    _data_became_link(site)
    site.options["user"] = "4711"


def _data_is_a_file(site: GameSite) -> None:
    site.data.rename(site.directory / "data-before")
    site.data.write_text("")


#: What must be refused, with words of the reason.
REFUSED: dict[str, tuple[Callable[[GameSite], object], str]] = {
    "the logs were replaced by a link": (_logs_swapped, "became a link|not a directory"),
    "the logs lie in the data": (lambda site: site.options.update(logs_path=site.data / "sub"), "is the controller's"),
    "the data lie in the logs": (
        lambda site: site.options.update(data_path=site.data / "sub", logs_path=site.data),
        "is the controller's",
    ),
    "a mount lies in the data": (lambda site: site.mount((site.data / "sub", "/maps")), "is the controller's"),
    "a mount was replaced by a link": (
        lambda site: site.mount((_swap(site.data / "sub", site.host), "/maps")),
        "is the controller's",
    ),
    "a link leads into the data": (
        lambda site: site.mount((_link(site.srv / "nice", site.data / "sub"), "/maps")),
        "is the controller's",
    ),
    "a link leads through the data": (_hop, "is the controller's"),
    "dots lead through the data": (_dots, "is the controller's"),
    "a mount holds the data": (lambda site: site.mount((site.directory, "/all")), "is the controller's|gateway's"),
    "a mount lies in another one": (_both_inside, "is the controller's"),
    "a bind mount hides that it lies in the data": (_bound_sub, "is the controller's"),
    "everybody may change the directory above": (_open_parent, "every account may change"),
    "it is to be mounted in the data": (
        lambda site: site.mount((site.srv / "maps", "/root/data/maps")),
        "is the controller's",
    ),
    "it is to be mounted over the data": (lambda site: site.mount((site.srv / "maps", "/root//data")), "are both"),
    "it is to be mounted over the logs": (lambda site: site.mount((site.srv / "maps", "/root/./logs")), "are both"),
    "dots lead over the data": (lambda site: site.mount((site.srv / "maps", "/maps/../root/data")), "are both"),
    "it is to be mounted over the kernel's": (lambda site: site.mount((site.srv / "maps", "/proc")), "on /proc"),
    "two on one place": (lambda site: site.mount((site.srv / "maps", "/m"), (site.srv, "/m/")), "are both|lies in"),
    "it is private": (lambda site: site.mount((site.directory / "private", "/maps")), "the gateway's"),
    "a link leads to what is private": (
        lambda site: site.mount((_link(site.srv / "nice", site.directory / "private"), "/maps")),
        "the gateway's",
    ),
    "it is not there": (lambda site: site.mount((site.srv / "nothing", "/maps")), "No such file"),
    "links lead in a circle": (_loop, "too many links"),
    "the data directory became a link": (_data_became_link, "became a link|not a directory"),
    "it became a link, and there is a user to give it to": (
        _data_with_user_became_link,
        "not a directory",
    ),
    "the data directory is a file": (_data_is_a_file, "not a directory"),
}


def _links_in_data(site: GameSite) -> None:
    """Links, second names and odd files among the controller's own: nobody follows them when it is given a user."""
    site.options["user"] = "4711:4712"
    (site.data / "communication_queue.db").symlink_to(site.host / "shadow")
    os.mkfifo(site.data / "config.json")
    (site.data / "second").hardlink_to(site.host / "shadow")
    _swap(site.data / "sub", site.host)


def _bound_elsewhere(site: GameSite) -> None:
    site.bind(site.srv / "maps", site.directory / "bound")
    site.mount((site.directory / "bound", "/maps"))


def _data_away(site: GameSite) -> None:
    (site.data / "sub").rmdir()
    site.data.rmdir()


#: What is fine: it starts, and no tripwire shows anything.
ALLOWED: dict[str, Callable[[GameSite], object]] = {
    "nothing": lambda site: None,
    "a link of the operator's": lambda site: site.mount((_link(site.srv / "nice", site.srv / "maps"), "/maps")),
    "a file": lambda site: site.mount((site.srv / "maps" / "map", "/map")),
    "a bind mount of something else": _bound_elsewhere,
    "its directory closed by the controller": lambda site: site.data.chmod(0),
    "its directory emptied": lambda site: (site.data / "sub").rmdir(),
    "its directory away": _data_away,
    "links among its files, and a user of its own": _links_in_data,
}
