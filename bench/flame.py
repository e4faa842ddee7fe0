"""Where the gateway's process spends its time while a backlog drains, as a flame graph (py-spy, 200 looks a second).

python -m bench.flame [--rows 400000] [--seconds 6] [--svg docs/pictures/drain-flame.svg]     (may need root)

The inbox reader is not in it: it lets nobody look into its memory.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.cost import pid_of
from bench.drain import connected_gateway
from bench.records import fill
from bench.server import stand_in

#: py-spy puts its own command line there.
_TITLE = re.compile(r'(<text id="title"[^>]*>)[^<]*')
PY_SPY = Path(sys.executable).parent / "py-spy"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--svg", type=Path, default=Path("docs/pictures/drain-flame.svg"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, stand_in(Path(name)) as server:
        place = Path(name)
        fill(place / "filled.db", options.rows)
        with connected_gateway(place / "g", server) as gateway:
            (place / "filled.db").rename(gateway.inbox_path)
            server.wait(1000, 60)
            wanted = ["--rate", "200", "--duration", str(options.seconds), "--output", str(options.svg)]
            title = ["--format", "flamegraph"]
            subprocess.run([PY_SPY, "record", *wanted, *title, "--pid", str(pid_of(gateway))], check=True)
            options.svg.write_text(_TITLE.sub(r"\1The gateway while a backlog drains", options.svg.read_text()))
            assert server.received() < options.rows, "the backlog ended before the look did: take more rows"
            server.wait(options.rows, 300)


if __name__ == "__main__":
    main()
