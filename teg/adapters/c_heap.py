"""The C library's heap, kept small.

glibc gives each of our twenty threads an arena of its own and keeps in it what is freed: three to eight megabytes
that nobody uses. Ours take turns in any case (the interpreter's lock), so one arena does for all. A publish of 60 kB
goes back to the system when it is freed, and leaves no hole.
"""

import ctypes

#: mallopt(3)
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_SETTINGS = {_ARENA_MAX: 1, _TRIM_THRESHOLD: 128 << 10, _MMAP_THRESHOLD: 32 << 10}


def keep_small() -> None:
    """Once, before there are threads. Another C library has no such switch, and nothing happens."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for setting, value in _SETTINGS.items():
            mallopt(setting, value)
