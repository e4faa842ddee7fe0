"""What `teg torture` runs: a site in a directory, the faults, the report."""

import shutil
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path

from teg.simulator.demo.children import ChildFailed
from teg.simulator.torture import run
from teg.simulator.torture.site import torture_site


class NotSound(Exception):  # noqa: N818
    """Something was lost, or could not be found out; the message says what, and where everything is kept."""


def torture_in(
    place: Path,
    seed: int,
    seconds: float,
    echo: Callable[[str], object],
    environment: Mapping[str, str],
    env_file: Path,
) -> None:
    """Everything lies in `place`, which is removed when nothing was lost.

    Raises:
        NotSound.
        OSError: `place` cannot be used.
    """
    run.fresh_directory(place)
    echo(f"seed {seed}, {seconds:.0f} s, in {place}")
    kept = f"everything is kept in {place}; again: teg torture --seed {seed}"
    try:
        with torture_site(place, environment, env_file) as site:
            report = run.torture(site, seed, seconds, echo)
    except (ChildFailed, RuntimeError, TimeoutError, sqlite3.Error) as failed:
        raise NotSound(f"{failed}\n{kept}") from failed
    for line in report.lines():
        echo(line)
    if report.verdict:
        raise NotSound(kept)
    shutil.rmtree(place)
