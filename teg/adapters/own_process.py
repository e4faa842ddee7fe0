"""The threads of this process as the kernel and the interpreter see them."""

import os
import sys
import threading
import traceback
from pathlib import Path
from types import FrameType
from typing import NoReturn

from teg.domain.liveness import ThreadState
from teg.domain.ports import STUCK_SIGNAL, STUCK_STATUS


def thread_state(native_id: int) -> ThreadState | None:
    """None when there is no such thread. From `status` of proc(5): its state, and how often it was run."""
    try:
        with open(f"/proc/self/task/{native_id}/status", encoding="ascii", errors="replace") as file:
            fields = dict(line.split(":\t", 1) for line in file if ":\t" in line)
    except (FileNotFoundError, ProcessLookupError):  # the latter when it ended since the opening
        return None
    runs = int(fields["voluntary_ctxt_switches"]) + int(fields["nonvoluntary_ctxt_switches"])
    return ThreadState(runs=runs, waits_for_disk=fields["State"].startswith("D"))


class OwnProcess:
    """`producers.self_watch.Process`."""

    def stacks(self) -> dict[int, tuple[str, str]]:
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        return {ident: (names.get(ident, "?"), _place(frame)) for ident, frame in sys._current_frames().items()}

    def end_gracefully(self) -> None:
        os.kill(os.getpid(), STUCK_SIGNAL)

    def end_at_once(self) -> NoReturn:
        """Nothing is closed any more: for when closing does not come to its end."""
        os._exit(STUCK_STATUS)


def _place(frame: FrameType) -> str:
    calls = traceback.extract_stack(frame)
    return " > ".join(f"{Path(call.filename).name}:{call.lineno} {call.name}" for call in calls)
