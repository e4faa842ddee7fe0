"""A `docker save` archive under our name only: an archive must not be able to move somebody else's tag."""

import lzma
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import orjson

from teg.domain.errors import Refused

_MAX_INDEX_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 20


def renamed_archive(path: Path, name: str) -> Iterator[bytes]:
    """The archive at `path` (plain or compressed) as `docker load` takes it, its one image called `name`; streamed.

    Raises:
        Refused: it is not an archive of exactly one image.
    """
    try:
        with tarfile.open(path, "r:*") as archive:
            yield from _members(archive, name)
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise Refused(f"{path.name} is not a `docker save` archive: {error}") from error


def check_archive(path: Path) -> None:
    """Raises Refused as `renamed_archive` would, before the engine is asked."""
    try:
        with tarfile.open(path, "r:*") as archive:
            _renamed_manifest(_read(archive, archive.getmember("manifest.json")), "checked:latest")
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError, KeyError) as error:
        raise Refused(f"{path.name} is not a `docker save` archive: {error}") from error


def _members(archive: tarfile.TarFile, name: str) -> Iterator[bytes]:
    for member in archive:
        if member.name == "repositories":  # the names once more, in the format of Docker 1.9
            continue
        if member.name == "manifest.json":
            yield from _file(member, _renamed_manifest(_read(archive, member), name))
        elif member.name == "index.json":
            yield from _file(member, _renamed_index(_read(archive, member), name))
        else:
            yield member.tobuf()
            yield from _content(archive, member)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Any:
    file = archive.extractfile(member)
    if file is None or member.size > _MAX_INDEX_BYTES:
        raise Refused(f"{member.name} in the archive is not a file of reasonable size")
    try:
        return orjson.loads(file.read())
    except orjson.JSONDecodeError as error:
        raise Refused(f"{member.name} in the archive is not JSON: {error}") from error


def _renamed_manifest(manifest: Any, name: str) -> Any:
    if not isinstance(manifest, list) or len(manifest) != 1 or not isinstance(manifest[0], dict):
        raise Refused("the archive has to hold exactly one image (docker save NAME:TAG)")
    return [manifest[0] | {"RepoTags": [name]}]


def _renamed_index(index: Any, name: str) -> Any:
    """Newer engines read names from the OCI index."""
    if not isinstance(index, dict) or not isinstance(index.get("manifests"), list):
        raise Refused("index.json in the archive is not an OCI index")
    names = {
        "io.containerd.image.name": f"docker.io/library/{name}",
        "org.opencontainers.image.ref.name": name.rpartition(":")[2],
    }
    return index | {"manifests": [entry | {"annotations": names} for entry in index["manifests"][:1]]}


def _file(member: tarfile.TarInfo, content: Any) -> Iterator[bytes]:
    body = orjson.dumps(content)
    member.size = len(body)
    member.pax_headers = {}
    yield member.tobuf()
    yield body + bytes(-len(body) % tarfile.BLOCKSIZE)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[bytes]:
    if not member.isreg():
        return
    file = cast(BinaryIO, archive.extractfile(member))
    left = member.size
    while left:
        chunk = file.read(min(_CHUNK_BYTES, left))
        if not chunk:
            raise EOFError("it ends in the middle of a file")
        left -= len(chunk)
        yield chunk
    yield bytes(-member.size % tarfile.BLOCKSIZE)
