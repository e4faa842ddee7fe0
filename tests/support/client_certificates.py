"""Client certificates for tests, each from an authority of its own."""

import datetime
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Pair:
    certificate: Path
    key: Path
    authority: Path

    @property
    def pem(self) -> str:
        return self.certificate.read_text()

    @property
    def settings(self) -> dict[str, str]:
        return {"TB_CLIENT_CERT": str(self.certificate), "TB_CLIENT_KEY": str(self.key)}


def issue(folder: Path, name: str = "pi-07", days: float = 90.0, since_days: float = 1.0) -> Pair:
    """Valid since so many days and for so many more."""
    now = datetime.datetime.now(datetime.UTC)
    begins, ends = now - datetime.timedelta(days=since_days), now + datetime.timedelta(days=days)
    authority = trustme.CA()
    issued = authority.issue_cert(f"{name}.invalid", common_name=name, not_before=begins, not_after=ends)
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.key", folder / f"{name}-authority.pem")
    folder.mkdir(parents=True, exist_ok=True)
    pair.key.touch(mode=0o600)
    issued.cert_chain_pems[0].write_to_path(pair.certificate)
    issued.private_key_pem.write_to_path(pair.key)
    authority.cert_pem.write_to_path(pair.authority)
    return pair
