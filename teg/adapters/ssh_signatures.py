"""Detached signatures checked by OpenSSH itself: ssh-keygen(1), `-Y verify` and ALLOWED SIGNERS."""

import os
import subprocess
import tempfile
import textwrap
from pathlib import Path

from teg.domain.errors import Refused, Unavailable
from teg.domain.ota.signatures import NAMESPACE

_DEADLINE_S = 20.0
#: A key may stand in the file under several names; each may be restricted in another way.
_MAX_NAMES = 20


class SshSignatures:
    """`ota.signatures.SignatureCheck` with the keys in the file `signers`; None: no key may sign."""

    def __init__(self, signers: Path | None) -> None:
        self._signers = signers

    def verify(self, statement: bytes, signature: str) -> str:
        if self._signers is None:
            raise Refused("TEG_OTA_REQUIRE_SIGNATURE is on and TEG_OTA_ALLOWED_SIGNERS names no file of keys")
        try:
            with tempfile.TemporaryDirectory(prefix="teg-signature-") as directory:
                file = Path(directory) / "signature"
                file.write_text(_armored(signature))
                return self._signer(statement, file)
        except OSError as error:
            raise Unavailable(f"the signature cannot be checked: {error}") from error

    def _signer(self, statement: bytes, file: Path) -> str:
        known = self._run("find-principals", statement, "-s", str(file))
        for name in known.stdout.decode(errors="replace").splitlines()[:_MAX_NAMES]:
            checked = self._run("verify", statement, "-n", NAMESPACE, "-I", name, "-s", str(file))
            if checked.returncode == 0:
                return name
        raise Refused(
            "the software has no good signature: it is by a key that is not in TEG_OTA_ALLOWED_SIGNERS, or of another "
            "version or content"
        )

    def _run(self, action: str, statement: bytes, *options: str) -> "subprocess.CompletedProcess[bytes]":
        try:
            return subprocess.run(
                ["ssh-keygen", "-Y", action, "-f", str(self._signers), *options],
                input=statement,
                capture_output=True,
                timeout=_DEADLINE_S,
                env={"PATH": os.defpath, "LC_ALL": "C"},
                cwd="/",
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise Unavailable("the signature cannot be checked: ssh-keygen does not end") from error


def _armored(signature: str) -> str:
    body = "\n".join(textwrap.wrap(signature, 70))
    return f"-----BEGIN SSH SIGNATURE-----\n{body}\n-----END SSH SIGNATURE-----\n"
