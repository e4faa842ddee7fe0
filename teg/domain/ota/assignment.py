"""Which controller version the server wants, from which source, and how versions are written back to it.

Source: ThingsBoard OTA updates, https://thingsboard.io/docs/user-guide/ota-updates/ (shared attributes `sw_*`), and the
reference gateway's older names `sf_*`. Everything here is pure; what cannot be accepted raises `Refused`.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from teg.domain.errors import Refused
from teg.domain.ota.checksums import new_hasher
from teg.domain.ota.signatures import carried_signature, require_signature
from teg.domain.server import encodable
from teg.domain.supervision import reported_version

#: What is read of `sw_<name>`; the reference's `sf_<name>` counts only while there is no `sw_version`.
FIELDS = ("title", "version", "tag", "url", "size", "checksum", "checksum_algorithm", "signature", "ts")
VERSION_KEYS = ("sw_version", "sf_version")

#: Reported while no version is known at all, with the reference gateway's text.
UNKNOWN_VERSION = "UNKNOWN"
NO_VERSION_KNOWN = "No previous version known to launch from, requested version info from ThingsBoard"

MAX_PACKAGE_BYTES = 1 << 40
MAX_TEXT = 512
MAX_ERROR_TEXT = 4_000

_TAG = re.compile(r"v?[0-9A-Za-z][0-9A-Za-z._-]{0,63}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}", re.ASCII)
_REFERENCE = re.compile(
    r"(?P<host>[A-Za-z0-9.-]+(?::\d{1,5})?)"
    r"/(?P<name>[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*)*)"
    r"(?P<tag>:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?"
    r"(?P<digest>@sha256:[0-9a-f]{64})?",
    re.ASCII,
)


class Source(StrEnum):
    """Where a version comes from."""

    GIT = "git"  #: a tag or full hash of the local controller repository
    REGISTRY = "registry"  #: an image of an allow-listed registry
    PACKAGE = "package"  #: a `docker save` archive stored in ThingsBoard


class SwState(StrEnum):
    """What `sw_state` may say; ThingsBoard's stock dashboards know these words."""

    DOWNLOADING = "DOWNLOADING"
    DOWNLOADED = "DOWNLOADED"
    VERIFIED = "VERIFIED"
    UPDATING = "UPDATING"
    UPDATED = "UPDATED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A version the operator assigned, checked: everything in it may be handed to Git and Docker."""

    version: str
    title: str
    source: Source
    reference: str = ""  #: REGISTRY: what to pull
    size: int = 0  #: PACKAGE: bytes
    checksum: str = ""  #: PACKAGE: lower-case hex
    algorithm: str = ""  #: PACKAGE
    signature: str = ""  #: PACKAGE, REGISTRY: where one is required

    def content(self) -> str:
        """Names the exact content where the assignment alone tells it, else empty (a Git tag, a registry's tag)."""
        if self.source is Source.PACKAGE:
            return f"{self.algorithm}:{self.checksum}"
        return self.reference.partition("@")[2]

    def digest(self) -> str:
        """What a signature is over: `sha256:…` of the package's file or the image's manifest."""
        return self.content().lower()

    def encode(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def parse(cls, stored: Mapping[str, Any]) -> "Assignment":
        return cls(**{**stored, "source": Source(stored["source"])})


def relevant(shared: Mapping[str, Any]) -> dict[str, Any] | None:
    """The attributes that describe the wanted software, without their prefix; None when nothing is assigned."""
    for prefix in ("sw", "sf"):
        if shared.get(f"{prefix}_version") not in (None, ""):
            found = {name: shared[f"{prefix}_{name}"] for name in FIELDS if f"{prefix}_{name}" in shared}
            return {name: _bounded(value) for name, value in found.items()}
    return None


def is_assigned_anew(pushed: Collection[str]) -> bool:
    """Whether a push (keys changed or deleted) is an operator's choice of the version itself."""
    return any(key in pushed for key in VERSION_KEYS)


def _bounded(value: Any) -> Any:
    """What is stored of a hostile value: enough to refuse it by name, never megabytes."""
    if isinstance(value, bool | int | float):
        return value
    return value[: MAX_TEXT + 1] if isinstance(value, str) else repr(value)[:80]


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptRules:
    """What the local configuration lets the server choose. `registries`: hosts, or hosts and how the path begins."""

    registries: tuple[str, ...] = ()
    signed_only: bool = False
    digest_only: bool = False


def parse_assignment(wanted: Mapping[str, Any], rules: AcceptRules) -> Assignment:
    """Check what `relevant` returned.

    Raises:
        Refused: saying which attribute cannot be accepted and what would be.
    """
    version = parse_version(wanted.get("version"))
    title = _text(wanted, "title") or version
    url = _text(wanted, "url").strip()
    if url not in ("", "-"):
        reference = parse_reference(url, version, rules.registries)
        if rules.digest_only and "@" not in reference:
            raise Refused("TEG_OTA_REQUIRE_DIGEST is on: sw_url has to name the image by its digest (…@sha256:…)")
        image = Assignment(version=version, title=title, source=Source.REGISTRY, reference=reference)
        return _signed(image, wanted, "SHA256" if "@" in reference else "") if rules.signed_only else image
    if url == "" and ("checksum" in wanted or "size" in wanted):
        package = _package(wanted, version, title)
        return _signed(package, wanted, package.algorithm) if rules.signed_only else package
    return Assignment(version=version, title=title, source=Source.GIT)


def parse_version(value: Any) -> str:
    """A Git tag or a full commit hash, safe as an argument of Git and as part of a name in Docker.

    Raises:
        Refused: for anything else, and for a number: the server has already turned `1.10` into 1.1.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise Refused(f"sw_version is not text but {value!r:.60}: write it with a leading v, such as v1.10")
    if not _TAG.fullmatch(value) or ".." in value or value.endswith((".", ".lock")):
        raise Refused(
            f"sw_version {value!r:.80} is not accepted: use a tag of up to 64 letters, digits, '.', '_' and '-', "
            "or a full commit hash"
        )
    return value


def is_commit_hash(version: str) -> bool:
    return _COMMIT.fullmatch(version) is not None


def parse_reference(url: str, version: str, registries: Collection[str]) -> str:
    """The image reference to pull, with the version as its tag when `url` names none.

    Raises:
        Refused: not an image reference, or none that TEG_OTA_REGISTRIES allows.
    """
    match = _REFERENCE.fullmatch(url.removeprefix("docker://"))
    if match is None:
        raise Refused(
            f"sw_url {url!r:.120} is neither '-' nor an image such as registry.example:5000/controller@sha256:…"
        )
    if not any(_allows(entry, match["host"], match["name"]) for entry in registries):
        allowed = ", ".join(registries) or "empty"
        raise Refused(
            f"registry {match['host'] + '/' + match['name']!r:.160} of sw_url is not in TEG_OTA_REGISTRIES ({allowed})"
        )
    tag = match["tag"] or ("" if match["digest"] else f":{version}")
    return f"{match['host']}/{match['name']}{tag}{match['digest'] or ''}"


def _allows(entry: str, host: str, name: str) -> bool:
    """Whether an entry of TEG_OTA_REGISTRIES is this host, and its path (if any) the beginning of the name's."""
    allowed_host, *path = entry.strip("/").split("/")
    return allowed_host.lower() == host.lower() and name.split("/")[: len(path)] == path


def _signed(assignment: Assignment, wanted: Mapping[str, Any], algorithm: str) -> Assignment:
    signature = carried_signature(wanted)
    require_signature(signature, algorithm)
    return replace(assignment, signature=signature)


def _package(wanted: Mapping[str, Any], version: str, title: str) -> Assignment:
    size = wanted.get("size")
    if isinstance(size, str) and re.fullmatch(r"[0-9]{1,15}", size):
        size = int(size)
    if isinstance(size, bool) or not isinstance(size, int) or not 0 < size <= MAX_PACKAGE_BYTES:
        raise Refused(f"sw_size {size!r:.40} is not a possible size of a package in bytes")
    algorithm = _text(wanted, "checksum_algorithm").upper()
    digits = len(new_hasher(algorithm).hexdigest())
    checksum = _text(wanted, "checksum").lower()
    if not re.fullmatch(rf"[0-9a-f]{{{digits}}}", checksum):
        raise Refused(f"sw_checksum {checksum!r:.80} is not the {digits} hex digits of {algorithm}")
    return Assignment(
        version=version, title=title, source=Source.PACKAGE, size=size, checksum=checksum, algorithm=algorithm
    )


def _text(wanted: Mapping[str, Any], name: str) -> str:
    value = wanted.get(name, "")
    if value is None:
        return ""
    text = value if isinstance(value, str) else str(value)
    if len(text) > MAX_TEXT:
        raise Refused(f"sw_{name} is longer than {MAX_TEXT} characters")
    return text


def status(version: str, title: str, state: SwState, error: str = "") -> dict[str, str]:
    """The telemetry of one step; `version` and `title` are of what really runs, never of what is wanted."""
    if len(error) > MAX_ERROR_TEXT:
        error = error[: MAX_ERROR_TEXT - 1] + "…"
    error = encodable(error)
    return {
        "current_sw_title": reported_version(title),
        "current_sw_version": reported_version(version),
        "sw_state": state.value,
        "sw_error": error,
    }
