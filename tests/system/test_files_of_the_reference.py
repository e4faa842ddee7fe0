"""Definitions as the reference's guide shows them: the crontab and a relative path work where the roots allow it, and
`teg check` says which do not."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.planted_faults.site import TEG
from tests.support.running import RunningGateway, wait_until

CRONTAB = "*/5 * * * * echo measured\n"


@contextmanager
def gateway_with(directory: Path, roots: str) -> Iterator[tuple[RunningGateway, Path]]:
    crontabs = directory / "spool" / "cron" / "crontabs"
    crontabs.mkdir(parents=True)
    (crontabs / "root").write_text("# nothing yet\n")
    (crontabs / "root").chmod(0o600)
    with ThingsBoard() as server:
        device = server.add_device("pi", token="T1")
        device.set_shared(
            {
                "FILES": {"crontab": {"path": str(crontabs / "root")}, "cfg": {"path": "config/site.txt"}},
                "FILE_CONTENT_crontab": CRONTAB,
                "FILE_CONTENT_cfg": "relative",
            }
        )
        gateway = RunningGateway(directory / "site", server.host, server.port, "T1")
        gateway.environment["TEG_FILE_ROOTS"] = f"{gateway.controller_path}{roots}"
        with gateway:
            wait_until(lambda: (gateway.controller_path / "config" / "site.txt").exists(), 60, "the relative one")
            yield gateway, crontabs / "root"


def check(gateway: RunningGateway) -> str:
    return subprocess.run([TEG, "check"], env=gateway.environment, capture_output=True, text=True, timeout=60).stdout


def test_the_crontab_is_written_where_its_folder_is_a_root(tmp_path: Path) -> None:
    with gateway_with(tmp_path, f":{tmp_path}/spool/cron/crontabs") as (gateway, crontab):
        wait_until(lambda: crontab.read_text() == CRONTAB, 60, "the crontab")
        assert (gateway.controller_path / "config" / "site.txt").read_text() == "relative"
        kept = crontab.stat()
        assert (kept.st_mode & 0o777, kept.st_uid) == (0o600, os.geteuid()), "cron takes no other"
        assert "✓ remote files: none is refused" in check(gateway)


def test_a_crontab_outside_the_roots_is_told_by_check(tmp_path: Path) -> None:
    with gateway_with(tmp_path, "") as (gateway, crontab):
        wait_until(lambda: "! remote files: crontab: " in check(gateway), 60, "check tells")
        assert "TEG_FILE_ROOTS" in next(line for line in check(gateway).splitlines() if "remote files" in line)
        assert crontab.read_text() == "# nothing yet\n"
