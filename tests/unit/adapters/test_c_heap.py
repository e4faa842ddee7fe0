"""One arena for all threads. Asked of glibc itself, in a process of its own: the setting cannot be taken back."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

THREADS = """
import ctypes, sys, threading
from teg.adapters import c_heap
if sys.argv[1] == "kept small":
    c_heap.keep_small()
libc = ctypes.CDLL(None)
libc.fopen.restype = libc.malloc.restype = ctypes.c_void_p
libc.malloc_info.argtypes = ctypes.c_int, ctypes.c_void_p
libc.fclose.argtypes = (ctypes.c_void_p,)
together = threading.Barrier(8)
def use():
    together.wait()
    libc.malloc(ctypes.c_size_t(5000))
    together.wait()
threads = [threading.Thread(target=use) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
file = libc.fopen(sys.argv[2].encode(), b"w")
libc.malloc_info(0, file)
libc.fclose(file)
"""


def arenas(tmp_path: Path, how: str) -> int:
    report = tmp_path / "malloc_info"
    subprocess.run([sys.executable, "-c", THREADS, how, str(report)], check=True, timeout=60)
    return report.read_text().count("<heap ")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_all_threads_share_one_arena(tmp_path: Path) -> None:
    assert arenas(tmp_path, "kept small") == 1
    assert arenas(tmp_path, "as it is") > 1, "the measure measures"
