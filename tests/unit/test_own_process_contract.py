"""The promise of `producers.self_watch.Process`, kept by this process and by what its watch is tested with."""

import re
import subprocess
import sys
import threading

import pytest

from producers.self_watch import Process
from teg.adapters.own_process import OwnProcess
from teg.domain.ports import STUCK_STATUS
from tests.support.own_process import FakeProcess

ENDS = """
import signal, sys
from teg.adapters.own_process import OwnProcess
from teg.domain.ports import STUCK_SIGNAL
signal.signal(STUCK_SIGNAL, lambda *_: (print("told", flush=True), sys.exit(3)))
OwnProcess().{how}()
signal.pause()
"""


def ended(how: str) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-c", ENDS.format(how=how)], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout


@pytest.mark.parametrize("process", [OwnProcess(), FakeProcess()])
def test_every_thread_has_a_name_and_a_place(process: Process) -> None:
    stacks = process.stacks()
    assert threading.get_ident() in stacks
    for name, place in stacks.values():
        assert name
        for call in place.split(" > "):
            assert re.fullmatch(r"[\w<>.-]+:\d+ \S+", call), place


def test_a_graceful_end_is_a_signal_whose_handler_has_the_last_word() -> None:
    assert ended("end_gracefully") == (3, "told\n")
    fake = FakeProcess()
    fake.end_gracefully()
    assert fake.endings == ["gracefully"]


def test_an_end_at_once_asks_nobody() -> None:
    assert ended("end_at_once") == (STUCK_STATUS, "")
    fake = FakeProcess()
    fake.end_at_once()
    assert fake.endings == ["at once"]
