"""The gateway, noting which of its files a walk enters: where it begins, and the tasks that follow from it.

`huey_consumer bench.traced_gateway.huey` with TRACE_PATH, TRACE_BEGINS and TRACE_TASKS in its environment: SIGRTMIN
begins anew, SIGRTMAX writes what was noted. See bench/hops.py.
"""

import json
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from gateway import huey as huey

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("teg/", "tasks/", "producers/", "gateway.py")
TRACE_PATH = Path(os.environ["TRACE_PATH"])
TRACE_BEGINS = frozenset(os.environ["TRACE_BEGINS"].split(","))  # "file:function"
TRACE_TASKS = frozenset(os.environ["TRACE_TASKS"].split(","))

_files: dict[str, str] = {}
_entered: dict[str, str] = {}  # file → the function by which it was entered first
_here = threading.local()


def _file(path: str) -> str:
    """'' for what is not ours."""
    if path not in _files:
        ours = Path(path).is_relative_to(ROOT)
        name = str(Path(path).relative_to(ROOT)) if ours else ""
        _files[path] = name if name.startswith(ROOMS) else ""
    return _files[path]


def _begins(file: str, frame: FrameType) -> bool:
    """With what comes in on a thread that waits for it; the walk goes on with each task that follows from it."""
    function = frame.f_code.co_name
    if f"{file}:{function}" in TRACE_BEGINS:
        return True
    return file == "tasks/queue.py" and function == "run" and frame.f_locals.get("name") in TRACE_TASKS


def _profile(frame: FrameType, event: str, _argument: Any) -> None:
    if event not in ("call", "return"):
        return
    file = _file(frame.f_code.co_filename)
    if not file:
        return
    inside: FrameType | None = getattr(_here, "inside", None)
    if event == "return":
        if frame is inside:
            _here.inside = None
        return
    if inside is None and _begins(file, frame):
        inside = _here.inside = frame
    if inside is not None:
        _entered.setdefault(file, frame.f_code.co_name)


def _write(entered: dict[str, str]) -> None:
    partial = TRACE_PATH.with_suffix(".new")
    partial.write_text(json.dumps(entered))
    partial.rename(TRACE_PATH)


def _begin(_number: int, _frame: FrameType | None) -> None:
    _entered.clear()
    _write({})


def _end(_number: int, _frame: FrameType | None) -> None:
    _write(dict(_entered))


signal.signal(signal.SIGRTMIN, _begin)
signal.signal(signal.SIGRTMAX, _end)
threading.setprofile(_profile)
sys.setprofile(_profile)
