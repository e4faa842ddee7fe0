"""Which threads of this process run."""

import threading


def runs(name: str) -> bool:
    return any(thread.name == name for thread in threading.enumerate())
