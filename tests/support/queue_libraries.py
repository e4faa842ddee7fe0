"""Where the tests find the libraries of Redis and PostgreSQL: beside the environment, which is production's."""

import os
import sys
from pathlib import Path

DIRECTORY = Path(sys.prefix) / "queue-libraries"


def add() -> None:
    """For this process; last, so that it shadows nothing."""
    if str(DIRECTORY) not in sys.path:
        sys.path.append(str(DIRECTORY))


def environment() -> dict[str, str]:
    """For a process of its own that is to find them."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(DIRECTORY)]))}
