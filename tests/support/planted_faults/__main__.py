"""The table: fault, first line of `teg check`."""

import shutil
import tempfile
from pathlib import Path

from tests.support.planted_faults.every import FAULTS, site_in
from tests.support.running import PROJECT


def main() -> None:
    print("| fault | first line of `teg check` |\n|---|---|")
    for name, (plant, _) in FAULTS.items():
        directory = Path(tempfile.mkdtemp(prefix="teg-fault-"))
        try:
            with site_in(directory) as site:
                plant(site)
                shown = site.teg("check").stdout.splitlines()[0]
        finally:
            shutil.rmtree(directory)
        print(
            f"| {name.replace('_', ' ')} | `{shown.replace(str(directory), '…').replace(str(PROJECT), '…')}` |",
            flush=True,
        )


if __name__ == "__main__":
    main()
