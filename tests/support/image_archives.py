"""`docker save` archives put together member by member: good ones, and what an attacker would make of them."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, target: str = "") -> bytes:
    """One member as its bytes in the archive."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, len(content), target
    return info.tobuf(tarfile.PAX_FORMAT) + content + bytes(-len(content) % 512)


def tar(members: Iterable[bytes]) -> bytes:
    return b"".join(members) + bytes(1024)


def pax(records: dict[str, str], kind: bytes = tarfile.XHDTYPE) -> bytes:
    """An extended header that belongs to the member after it."""
    body = b""
    for name, value in records.items():
        record = f" {name}={value}\n".encode()
        length = len(record) + len(str(len(record) + 3))
        length = len(record) + len(str(length))
        body += str(length).encode() + record
    info = tarfile.TarInfo("pax")
    info.type, info.size = kind, len(body)
    return info.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % 512)


def layer(files: dict[str, bytes]) -> bytes:
    return tar([member(name, content) for name, content in files.items()])


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def config_of(layers: Iterable[bytes], **more: Any) -> bytes:
    ids = [f"sha256:{digest(data)}" for data in layers]
    body = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": ids}}
    return json.dumps(body | more).encode()


@dataclass
class Parts:
    """A good archive of one image; what a test changes, it changes here before `build`."""

    layers: list[bytes] = field(default_factory=lambda: [layer({"etc/site": b"roof"}), layer({"app.py": b"pass\n"})])
    tag: str = "foreign/thing:1"
    config: bytes = b""
    manifest: Any = None
    before: list[bytes] = field(default_factory=list)  #: members in front of everything
    after: list[bytes] = field(default_factory=list)
    pack: Callable[[bytes], bytes] = lambda data: data  #: how a layer lies in the archive

    def __post_init__(self) -> None:
        self.config = self.config or config_of(self.layers)
        names = [f"{number}/layer.tar" for number in range(len(self.layers))]
        self.manifest = [{"Config": f"{digest(self.config)}.json", "RepoTags": [self.tag], "Layers": names}]

    def members(self) -> list[bytes]:
        layers = [member(f"{number}/layer.tar", self.pack(data)) for number, data in enumerate(self.layers)]
        body = json.dumps(self.manifest).encode()
        return [
            *self.before,
            *layers,
            member(f"{digest(self.config)}.json", self.config),
            member("repositories", b'{"foreign/thing":{"1":"x"}}'),
            member("manifest.json", body),
            *self.after,
        ]

    def write(self, path: Path) -> Path:
        path.write_bytes(tar(self.members()))
        return path


def names_in(data: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return [found.name for found in archive]
