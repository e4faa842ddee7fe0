"""What may be loaded of a `docker save` archive: a new archive of exactly the files that its one manifest names.

The engine never reads what was sent. Everything is read, checked and counted here first; what the engine gets is
written anew, under names of ours, with nothing but plain files in it: the configuration, the layers without their
compression, and a manifest that names our tag. Source: moby image/tarexport/load.go, OCI image-spec config.md.
"""

import hashlib
import lzma
import os
import posixpath
import re
import stat
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from teg.adapters.docker_engine.expansion import Budget, Read, expanded
from teg.adapters.docker_engine.tar_reader import Member, TarReader
from teg.domain.errors import Refused

MANIFEST = "manifest.json"
MAX_EXPANDED_BYTES = 8 << 30
MAX_MEMBERS = 4_096
MAX_LAYERS = 127  #: the engine's own limit
MAX_LAYER_ENTRIES = 500_000  #: files of all layers together: each costs an inode
_ARCHIVE_ITSELF_BYTES = 64 << 20  #: headers and files beside the image's
_MAX_MANIFEST_BYTES = 1 << 20
_MAX_CONFIG_BYTES = 4 << 20

#: What engines and builders write. Two spellings of one name (case, dots, slashes, Unicode) are nobody's need.
_PART = r"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._:@=+-]{1,255}"
_NAME = re.compile(rf"{_PART}(?:/{_PART}){{0,15}}")
_DIGEST_NAME = re.compile(r"(?:.*[/:])?([0-9a-f]{64})(?:\.json)?", re.ASCII)
_DIFF_ID = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_DAMAGED = (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError, UnicodeError)


@dataclass(frozen=True, slots=True)
class _Layer:
    diff_id: str
    size: int


@dataclass(frozen=True, slots=True)
class CheckedArchive:
    """An archive of one image that was read to its end and found good. `digest` names the image's content."""

    path: Path
    config: bytes
    config_member: str
    layers: Mapping[str, _Layer]  #: by the member that holds it
    diff_ids: tuple[str, ...]
    limit_bytes: int

    @property
    def digest(self) -> str:
        return "sha256:" + hashlib.sha256(self.config).hexdigest()

    def written_anew(self, name: str) -> Iterator[bytes]:
        """The archive for `docker load`, its image called `name`; streamed."""
        config_name = f"{self.digest[7:]}.json"
        layers = [_layer_name(diff_id) for diff_id in self.diff_ids]
        manifest = orjson.dumps([{"Config": config_name, "RepoTags": [name], "Layers": layers}])
        for file_name, body in ((MANIFEST, manifest), (config_name, self.config)):
            yield _header(file_name, len(body)) + body + bytes(-len(body) % tarfile.BLOCKSIZE)
        yield from self._layers()
        yield bytes(2 * tarfile.BLOCKSIZE)

    def _layers(self) -> Iterator[bytes]:
        written: set[str] = set()
        with _opened(self.path, self.limit_bytes) as reader:
            budget = _budget(self.limit_bytes)
            for member in reader:
                layer = self.layers.get(member.name)
                if layer is None or layer.diff_id in written:
                    continue
                written.add(layer.diff_id)
                yield _header(_layer_name(layer.diff_id), layer.size)
                yield from _pieces(expanded(reader.take, budget))
                yield bytes(-layer.size % tarfile.BLOCKSIZE)


def check_archive(path: Path, limit_bytes: int = MAX_EXPANDED_BYTES) -> CheckedArchive:
    """Read the archive at `path` (plain, or compressed with gzip, bzip2 or xz) to its end, without the engine.

    Raises:
        Refused: it is not an archive of exactly one image, something in it is not what it says, or it expands to
            more than `limit_bytes`.
    """
    limit_bytes = min(limit_bytes, MAX_EXPANDED_BYTES)
    members, manifest = _index(path, limit_bytes)
    config_member, layer_members = _named(manifest, members)
    config, layers = _read_named(path, limit_bytes, config_member, set(layer_members))
    diff_ids = _checked_config(config, config_member)
    found = tuple(layers[name].diff_id for name in layer_members)
    if found != diff_ids:
        raise Refused(f"the layers in {path.name} are not those that its image names: it is damaged or was altered")
    return CheckedArchive(path, config, config_member, layers, diff_ids, limit_bytes)


@contextmanager
def _opened(path: Path, limit_bytes: int) -> Iterator[TarReader]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Refused(f"{path.name} is not a file")
            yield TarReader(expanded(file.read, _budget(limit_bytes + _ARCHIVE_ITSELF_BYTES)))
    except _DAMAGED as error:
        raise Refused(f"{path.name} is not a `docker save` archive: {error}") from error


def _budget(limit_bytes: int) -> Budget:
    return Budget(limit_bytes, f"the package expands to more than the {limit_bytes >> 20} MiB that it may have here")


# --- first reading: names ----------------------------------------------------------------------------------------


def _index(path: Path, limit_bytes: int) -> tuple[dict[str, Member], Any]:
    members: dict[str, Member] = {}
    spellings: set[str] = set()
    manifest: bytes | None = None
    with _opened(path, limit_bytes) as reader:
        for member in reader:
            name = _checked_name(member)
            if len(members) == MAX_MEMBERS:
                raise Refused(f"the archive has more than {MAX_MEMBERS} members")
            if name.casefold() in spellings:
                raise Refused(f"the archive has {name[:80]!r} twice")
            spellings.add(name.casefold())
            members[name] = member
            if name == MANIFEST and member.is_file:
                manifest = reader.read_all(_MAX_MANIFEST_BYTES, MANIFEST)
    if manifest is None:
        raise Refused(f"{path.name} is not a `docker save` archive: it has no {MANIFEST} (an OCI layout alone is none)")
    return members, _json(manifest, MANIFEST)


def _checked_name(member: Member) -> str:
    name = member.name[:-1] if member.kind == "5" and member.name.endswith("/") else member.name
    if not _NAME.fullmatch(name):
        raise Refused(f"the archive has a file of the unacceptable name {member.name[:80]!r}")
    if member.kind not in "025":
        raise Refused(f"{name[:80]!r} in the archive is neither a file nor a directory")
    if name.casefold() == MANIFEST and name != MANIFEST:
        raise Refused(f"the archive spells {MANIFEST} as {name!r}")
    if member.kind == "2" and _link_target(name, member.target) is None:
        raise Refused(f"{name[:80]!r} in the archive is a link that leads out of it")
    return name


def _link_target(name: str, target: str) -> str | None:
    found = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
    return found if not target.startswith("/") and _NAME.fullmatch(found) else None


def _named(manifest: Any, members: Mapping[str, Member]) -> tuple[str, list[str]]:
    """The members that hold the configuration and, in order, the layers."""
    if not isinstance(manifest, list) or len(manifest) != 1 or not isinstance(manifest[0], dict):
        raise Refused("the archive has to hold exactly one image (docker save NAME:TAG)")
    layers = manifest[0].get("Layers")
    if not isinstance(layers, list) or not 0 < len(layers) <= MAX_LAYERS:
        raise Refused(f"the image in the archive has no layers, or more than {MAX_LAYERS}")
    config, found = _member_of(manifest[0].get("Config"), members), [_member_of(name, members) for name in layers]
    if config in found:
        raise Refused(f"{MANIFEST} names {config!r:.100} as configuration and as layer")
    return config, found


def _member_of(name: Any, members: Mapping[str, Member]) -> str:
    """Engines before 25 write a layer that an image has twice as a link to the first: it is that file once more."""
    member = members.get(name) if isinstance(name, str) else None
    if member is not None and member.kind == "2":
        name = _link_target(name, member.target)
        member = members.get(name)
    if member is None or not member.is_file:
        raise Refused(f"{MANIFEST} names {name!r:.100}, which is no file in the archive")
    return str(name)


# --- second reading: what the manifest names ---------------------------------------------------------------------


def _read_named(
    path: Path, limit_bytes: int, config_member: str, layer_members: set[str]
) -> tuple[bytes, dict[str, _Layer]]:
    config, layers = b"", {}
    budget = _budget(limit_bytes)
    entries = Budget(MAX_LAYER_ENTRIES, f"the image in the package has more than {MAX_LAYER_ENTRIES} files")
    with _opened(path, limit_bytes) as reader:
        for member in reader:
            if member.name == config_member:
                config = reader.read_all(_MAX_CONFIG_BYTES, config_member)
            elif member.name in layer_members:
                layers[member.name] = _read_layer(expanded(reader.take, budget), entries)
    return config, layers


def _read_layer(read: Read, entries: Budget) -> _Layer:
    hasher, size = hashlib.sha256(), 0

    def hashed(count: int) -> bytes:
        nonlocal size
        piece = read(count)
        hasher.update(piece)
        size += len(piece)
        return piece

    for _ in TarReader(hashed):
        entries.take(1)
    for _ in _pieces(hashed):
        pass
    return _Layer(f"sha256:{hasher.hexdigest()}", size)


def _checked_config(config: bytes, name: str) -> tuple[str, ...]:
    """The digests of the layers that the configuration names."""
    named = _DIGEST_NAME.fullmatch(name)
    if named is not None and named[1] != hashlib.sha256(config).hexdigest():
        raise Refused(f"{name} in the archive does not have the content that its name says")
    body = _json(config, name)
    rootfs = body.get("rootfs") if isinstance(body, dict) else None
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(diff_ids, list) or not all(isinstance(d, str) and _DIFF_ID.fullmatch(d) for d in diff_ids):
        raise Refused(f"{name} in the archive is not the configuration of an image")
    if body.get("os", "linux") != "linux":
        raise Refused(f"the image is for {body.get('os')!r:.40}, this device is linux")
    return tuple(diff_ids)


# --- both --------------------------------------------------------------------------------------------------------


def _json(body: bytes, name: str) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused(f"{name} in the archive is not JSON: {error}") from error


def _pieces(read: Read) -> Iterator[bytes]:
    while piece := read(1 << 20):
        yield piece


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member.tobuf(tarfile.USTAR_FORMAT if size < 8 << 30 else tarfile.GNU_FORMAT)


def _layer_name(diff_id: str) -> str:
    return f"{diff_id[7:]}.tar"
