"""What is signed of a package or an image: its version and its digest, in a text that everybody can write.

The signature is OpenSSH's (`ssh-keygen -Y sign -n teg-ota`), by the keys that may sign Git tags, too. It travels in the
shared attribute `sw_signature`, or in the package's tag, `sw_tag`: a signature by an Ed25519 key fits there.
"""

import re
from collections.abc import Mapping
from typing import Any, Protocol

from teg.domain.errors import Refused

NAMESPACE = "teg-ota"
#: Digests that somebody who wants to deceive cannot meet.
STRONG = ("SHA256", "SHA384", "SHA512")
_SIGNATURE = re.compile(r"[A-Za-z0-9+/]{100,500}={0,2}", re.ASCII)
_ARMOR = re.compile(r"-----(BEGIN|END) SSH SIGNATURE-----")


class SignatureCheck(Protocol):
    def verify(self, statement: bytes, signature: str) -> str:
        """Who signed `statement`; raises Refused unless a key that may sign did, Unavailable when it cannot be told."""
        ...


def statement(version: str, digest: str) -> bytes:
    """Binds content to version: an old, signed content must not come back under a new name."""
    return f"{NAMESPACE} 1\nversion {version}\n{digest.lower()}\n".encode()


def carried_signature(wanted: Mapping[str, Any]) -> str:
    """The signature that came along, as one line of base64; empty when none did."""
    for name in ("signature", "tag"):
        value = wanted.get(name)
        text = re.sub(r"\s+", "", _ARMOR.sub("", value)) if isinstance(value, str) else ""
        if _SIGNATURE.fullmatch(text):
            return text
    return ""


def require_signature(signature: str, algorithm: str) -> None:
    """Raises Refused for what cannot be checked whatever the keys are."""
    if algorithm not in STRONG:
        raise Refused(
            f"TEG_OTA_REQUIRE_SIGNATURE is on and {algorithm or 'a tag'} names no content for sure: "
            "upload the package with SHA256, or name the image by its digest (…@sha256:…)"
        )
    if not signature:
        raise Refused(
            "TEG_OTA_REQUIRE_SIGNATURE is on and no signature came along, neither in sw_signature nor as the package's "
            "tag: sign it (docs/ota.md)"
        )
