"""Packages that somebody else made: what reaches the engine is written anew, and everything odd is refused before."""

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teg.adapters.docker_engine import image_archive
from teg.adapters.docker_engine.image_archive import check_archive
from teg.domain.errors import Refused
from tests.support.image_archives import Parts, config_of, digest, layer, member, names_in, pax, tar

MIB = 1 << 20
EVIL = json.dumps([{"Config": "x.json", "RepoTags": ["teg-gateway:latest"], "Layers": ["x"]}]).encode()


def written(parts: Parts, tmp_path: Path) -> bytes:
    checked = check_archive(parts.write(tmp_path / "package.tar"))
    return b"".join(checked.written_anew("teg-controller-v1:latest"))


# --- good ones ---------------------------------------------------------------------------------------------------


def test_the_new_archive_holds_what_the_manifest_names_and_our_tag_only(tmp_path: Path) -> None:
    parts = Parts(after=[member("more/etc/passwd", b"x"), member("index.json", b"{}")])
    data = written(parts, tmp_path)
    config = f"{digest(parts.config)}.json"
    layers = [f"{digest(data)}.tar" for data in parts.layers]
    assert sorted(names_in(data)) == sorted(["manifest.json", config, *layers])
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert all(found.isreg() for found in archive)
        manifest, its_config = archive.extractfile("manifest.json"), archive.extractfile(config)
        assert manifest is not None and its_config is not None
        assert json.load(manifest) == [{"Config": config, "RepoTags": ["teg-controller-v1:latest"], "Layers": layers}]
        assert its_config.read() == parts.config
        for name, content in zip(layers, parts.layers, strict=True):
            file = archive.extractfile(name)
            assert file is not None and file.read() == content


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, lambda data: data])
@pytest.mark.parametrize("pack", [gzip.compress, lambda data: gzip.compress(data[:700]) + gzip.compress(data[700:])])
def test_compressed_packages_and_layers_come_out_plain(
    tmp_path: Path, compress: Callable[[bytes], bytes], pack: Callable[[bytes], bytes]
) -> None:
    parts = Parts(pack=pack)
    path = tmp_path / "package"
    path.write_bytes(compress(tar(parts.members())))
    plain = written(Parts(), tmp_path)
    assert b"".join(check_archive(path).written_anew("teg-controller-v1:latest")) == plain


def test_a_layer_that_is_a_link_to_the_first_of_its_kind_is_that_layer(tmp_path: Path) -> None:
    """Engines before 25 save an image with the same layer twice so."""
    twice = layer({"x": b"x"})
    parts = Parts(layers=[twice], config=config_of([twice, twice]))
    parts.manifest[0]["Layers"] = ["0/layer.tar", "1/layer.tar"]
    _add(parts, member("1/layer.tar", kind=tarfile.SYMTYPE, target="../0/layer.tar"))
    data = written(parts, tmp_path)
    assert names_in(data).count(f"{digest(twice)}.tar") == 1
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        manifest = archive.extractfile("manifest.json")
        assert manifest is not None and json.load(manifest)[0]["Layers"] == [f"{digest(twice)}.tar"] * 2


# --- hostile ones ------------------------------------------------------------------------------------------------


def _with(**changes: object) -> Callable[[], bytes]:
    def make() -> bytes:
        parts = Parts()
        for name, value in changes.items():
            setattr(parts, name, value)
        return tar(parts.members())

    return make


def _manifest(change: Callable[[Parts], object]) -> Callable[[], bytes]:
    def make() -> bytes:
        parts = Parts()
        change(parts)
        return tar(parts.members())

    return make


def _add(parts: Parts, more: bytes) -> list[bytes]:
    parts.after.append(more)
    return parts.after


def _set(key: str, value: object) -> Callable[[], bytes]:
    return _manifest(lambda parts: parts.manifest[0].__setitem__(key, value))


def _layered(*layers: bytes) -> Callable[[], bytes]:
    return lambda: tar(Parts(layers=list(layers)).members())


def _sparse_header() -> bytes:
    info = tarfile.TarInfo("0/layer.tar.sparse")
    info.type, info.size = tarfile.GNUTYPE_SPARSE, 0
    return info.tobuf(tarfile.GNU_FORMAT)


def _size_field(raw: bytes) -> bytes:
    """A header whose size field is `raw`, with a right checksum."""
    block = bytearray(tarfile.TarInfo("odd").tobuf(tarfile.USTAR_FORMAT))
    block[124:136] = raw
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


HOSTILE: dict[str, Callable[[], bytes]] = {
    "two manifests": _with(before=[member("manifest.json", EVIL)]),
    "two manifests, the evil one last": _with(after=[member("manifest.json", EVIL)]),
    "./manifest.json beside it": _with(before=[member("./manifest.json", EVIL)]),
    "./manifest.json last": _with(after=[member("./manifest.json", EVIL)]),
    ".//manifest.json": _with(after=[member(".//manifest.json", EVIL)]),
    "x/../manifest.json": _with(after=[member("x/../manifest.json", EVIL)]),
    "/manifest.json": _with(after=[member("/manifest.json", EVIL)]),
    "manifest.json/": _with(after=[member("manifest.json/", EVIL)]),
    "manifest.json//": _with(after=[member("manifest.json//", EVIL)]),
    "MANIFEST.JSON": _with(after=[member("MANIFEST.JSON", EVIL)]),
    "full-width manifest": _with(after=[member("ｍanifest.json", EVIL)]),
    "long s in manifest": _with(after=[member("manifeſt.json", EVIL)]),
    "manifest with a zero-width space": _with(after=[member("manifest\u200b.json", EVIL)]),
    "manifest with a control character": _with(after=[member("manifest.json\r", EVIL)]),
    "backslashes": _with(after=[member(".\\manifest.json", EVIL)]),
    "another name by pax": _with(after=[pax({"path": "manifest.json"}), member("harmless", EVIL)]),
    "manifest hidden by pax": _with(after=[pax({"path": "./manifest.json"}), member("harmless", EVIL)]),
    "another name by GNU": _with(
        after=[member("././@LongLink", b"manifest.json\0", tarfile.GNUTYPE_LONGNAME), member("harmless", EVIL)]
    ),
    "the manifest a link": lambda: tar(
        [*Parts().members()[:-1], member("manifest.json", kind=tarfile.SYMTYPE, target="evil.json")]
    ),
    "no manifest": lambda: tar(Parts().members()[:-1]),
    "an OCI layout alone": lambda: tar([member("oci-layout", b"{}"), member("index.json", b"{}")]),
    "an absolute name": _with(after=[member("/etc/cron.d/evil", b"x")]),
    "a name that climbs": _with(after=[member("../../etc/cron.d/evil", b"x")]),
    "a layer that climbs": _set("Layers", ["../../../etc/passwd"]),
    "a layer by absolute path": _set("Layers", ["/etc/passwd"]),
    "a layer spelled otherwise": _set("Layers", ["./0/layer.tar", "1/layer.tar"]),
    "the configuration a device": _manifest(
        lambda parts: (
            parts.manifest[0].__setitem__("Config", "dev"),
            _add(parts, member("dev", kind=tarfile.CHRTYPE)),
        )
    ),
    "a FIFO": _with(after=[member("pipe", kind=tarfile.FIFOTYPE)]),
    "a block device": _with(after=[member("disk", kind=tarfile.BLKTYPE)]),
    "a hard link": _with(after=[member("hard", kind=tarfile.LNKTYPE, target="/etc/shadow")]),
    "a link out": _with(after=[member("soft", kind=tarfile.SYMTYPE, target="/etc/shadow")]),
    "a link that climbs": _with(after=[member("a/soft", kind=tarfile.SYMTYPE, target="../../etc/shadow")]),
    "a layer that is a link to a link": _manifest(
        lambda parts: (
            parts.manifest[0].__setitem__("Layers", ["2/layer.tar", "1/layer.tar"]),
            _add(parts, member("2/layer.tar", kind=tarfile.SYMTYPE, target="../3/layer.tar")),
            _add(parts, member("3/layer.tar", kind=tarfile.SYMTYPE, target="../0/layer.tar")),
        )
    ),
    "a file twice": _with(after=[member("0/layer.tar", b"other")]),
    "a file twice in another case": _with(after=[member("0/Layer.tar", b"other")]),
    "two images": _manifest(lambda parts: setattr(parts, "manifest", parts.manifest * 2)),
    "no image": _with(manifest=[]),
    "a manifest that is a map": _with(manifest={"Config": "x"}),
    "a manifest of nonsense": _with(manifest=["x"]),
    "no layers": _set("Layers", []),
    "layers of nonsense": _set("Layers", [{"a": 1}, 7]),
    "128 layers": _set("Layers", ["0/layer.tar"] * 128),
    "one layer of two": _set("Layers", ["0/layer.tar"]),
    "layers exchanged": _set("Layers", ["1/layer.tar", "0/layer.tar"]),
    "the configuration as layer": _manifest(
        lambda parts: parts.manifest[0].__setitem__("Layers", [parts.manifest[0]["Config"], "1/layer.tar"])
    ),
    "a layer with other content": _with(layers=[layer({"etc/site": b"evil"}), layer({"app.py": b"pass\n"})]),
    "a configuration with other content": lambda: tar(
        [
            member(f"{digest(Parts().config)}.json", Parts().config + b" ") if Parts().config in found else found
            for found in Parts().members()
        ]
    ),
    "a configuration that is none": lambda: tar(Parts(config=b'{"rootfs": []}').members()),
    "a configuration of nonsense": lambda: tar(Parts(config=b"\xff\xfe").members()),
    "an image for windows": lambda: tar(Parts(config=config_of(Parts().layers, os="windows")).members()),
    "a sparse member": _with(after=[_sparse_header()]),
    "a sparse member by pax": _with(
        after=[pax({"GNU.sparse.major": "1", "GNU.sparse.realsize": "9" * 15}), member("x")]
    ),
    "a sparse file in a layer": _layered(tar([_sparse_header()]), layer({"x": b""})),
    "a sparse file by pax in a layer": _layered(
        tar([pax({"GNU.sparse.map": "0,1", "GNU.sparse.size": "9" * 15}), member("x", b"1")]), layer({"x": b""})
    ),
    "a layer that is no tar": _layered(b"hello" * 300, layer({"x": b""})),
    "a layer in zstd": _layered(b"\x28\xb5\x2f\xfd" + bytes(600), layer({"x": b""})),
    "a negative size": _with(before=[_size_field(b"\xff" * 12)]),
    "a size of nonsense": _with(before=[_size_field(b"zzzzzzzzzzz\0")]),
    "a negative size by pax": _with(after=[pax({"size": "-1"}), member("x")]),
    "a size beyond the end": _with(after=[pax({"size": "9" * 15}), member("x")]),
    "an extended header that lies about its length": _with(
        after=[member("pax", b"99 path=x\n", tarfile.XHDTYPE), member("x")]
    ),
    "a huge extended header": _with(after=[member("pax", bytes(2 * MIB), tarfile.XHDTYPE), member("x")]),
    "a chain of extended headers": _with(after=[*[pax({"comment": "x"})] * 50, member("x")]),
    "a type of its own": _with(after=[member("x", b"y", b"Z")]),
    "too many members": _with(after=[member(f"m{number}") for number in range(5_000)]),
    "something after the end": lambda: tar(Parts().members())[:-512] + member("manifest.json", EVIL),
    "torn in a layer": lambda: tar(Parts().members())[:700],
    "torn in a header": lambda: tar(Parts().members())[:1_200],
    "torn compression": lambda: gzip.compress(tar(Parts().members()))[:-60],
    "damaged compression": lambda: gzip.compress(bytes(range(256)) * 40).replace(b"\x01\x02", b"\x00\x00")[:200],
    "something after the compression": lambda: gzip.compress(tar(Parts().members())) + b"teg-gateway:latest",
    "zeros": lambda: bytes(10_240),
    "empty": lambda: b"",
    "text": lambda: b"hello",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_packages_are_refused_before_the_engine_is_asked(tmp_path: Path, case: str) -> None:
    path = tmp_path / "package.tar"
    path.write_bytes(HOSTILE[case]())
    with pytest.raises(Refused):
        check_archive(path)


def test_the_package_itself_is_a_plain_file(tmp_path: Path) -> None:
    good = Parts().write(tmp_path / "good.tar")
    (tmp_path / "link").symlink_to(good)
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(Refused):
            check_archive(tmp_path / name)


# --- bombs -------------------------------------------------------------------------------------------------------


def _peak(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _zeros(size: int) -> bytes:
    """Gzip of zeros: a thousandth of its size."""
    return gzip.compress(bytes(MIB)) * (size // MIB)


@pytest.mark.parametrize("what", ["package", "layer"])
def test_an_expanding_package_is_refused_at_the_limit_in_little_memory(tmp_path: Path, what: str) -> None:
    path = tmp_path / "bomb.tar"
    if what == "package":
        huge = tarfile.TarInfo("0/layer.tar")
        huge.size = 400 * MIB
        path.write_bytes(gzip.compress(huge.tobuf()) + _zeros(400 * MIB))
    else:
        header = tarfile.TarInfo("zeros")
        header.size = 400 * MIB
        Parts(pack=lambda _: gzip.compress(header.tobuf()) + _zeros(400 * MIB)).write(path)
    assert path.stat().st_size < 2 * MIB

    def check() -> None:
        with pytest.raises(Refused, match="expands to more than"):
            check_archive(path, limit_bytes=64 * MIB)

    assert _peak(check) < 8 * MIB


def test_the_same_layer_named_often_costs_once(tmp_path: Path) -> None:
    one = layer({"zeros": bytes(4 * MIB)})
    parts = Parts(layers=[one], config=config_of([one] * 20))
    parts.manifest[0]["Layers"] = ["0/layer.tar"] * 20
    checked = check_archive(parts.write(tmp_path / "package.tar"), limit_bytes=8 * MIB)
    assert sum(map(len, checked.written_anew("teg-controller-v1:latest"))) < 6 * MIB


def test_an_image_of_too_many_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_archive, "MAX_LAYER_ENTRIES", 100)
    path = Parts(layers=[layer({f"f{number}": b"" for number in range(101)})]).write(tmp_path / "package.tar")
    with pytest.raises(Refused, match="more than 100 files"):
        check_archive(path)


def test_an_xz_stream_that_wants_gigabytes_to_expand_is_refused(tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 512 << 20, "mode": lzma.MODE_FAST, "mf": lzma.MF_HC3}]
    path = tmp_path / "package.tar.xz"
    path.write_bytes(_xz_with_dictionary(filters))
    with pytest.raises(Refused, match=r"(?i)memory"):
        check_archive(path)


def _xz_with_dictionary(filters: list[dict[str, int]]) -> bytes:
    """Made with a small dictionary; the header then claims the large one."""
    small = lzma.compress(tar(Parts().members()), filters=[{**filters[0], "dict_size": 1 << 20}])
    block = bytearray(small[12 : 12 + (small[12] + 1) * 4])
    assert block[2] == lzma.FILTER_LZMA2
    block[4] = 34  # 2^(34/2+12) = 512 MiB
    block[-4:] = _crc32(bytes(block[:-4]))
    return small[:12] + bytes(block) + small[12 + len(block) :]


def _crc32(data: bytes) -> bytes:
    import zlib

    return zlib.crc32(data).to_bytes(4, "little")


@given(st.data())
def test_a_damaged_package_is_refused_or_still_the_same(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Bytes flipped, cut and repeated anywhere: refused, or still exactly the same image."""
    good = bytearray(tar(Parts().members()))
    for _ in range(data.draw(st.integers(1, 4))):
        where = data.draw(st.integers(0, len(good) - 1))
        good[where] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "package.tar"
    path.write_bytes(bytes(good[: data.draw(st.integers(1, len(good)))]))
    try:
        checked = check_archive(path)
    except Refused:
        return
    assert [found for found in names_in(b"".join(checked.written_anew("a:b"))) if "/" in found] == []
