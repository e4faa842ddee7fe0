"""The promises of `rpc.ports.Machine` and `LogRing`, kept by host and log and by what the calls are tested with.

What ends the machine or the process is left out: `test_host.py` looks at the programs that would do it.
"""

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from teg.adapters.host.machine import HostMachine
from teg.adapters.log_handlers import LogOutput
from teg.domain.rpc.ports import LogRing, Machine
from tests.support.rpc import FakeLog, FakeMachine


@pytest.fixture(params=["host", "fake"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    return FakeMachine() if request.param == "fake" else HostMachine(tmp_path, threading.Event())


def test_a_command_leaves_its_code_and_its_output(machine: Machine) -> None:
    result = machine.run(["echo", "done"], 10)
    assert (result.exit_code, result.output, result.timed_out, result.truncated) == (0, "done\n", False, False)


def test_the_disk_is_larger_than_what_is_free(machine: Machine) -> None:
    total, free = machine.disk()
    assert 0 < free <= total


def test_counters_are_lists_of_words_by_their_first_word(machine: Machine) -> None:
    words = machine.sys_info()["cpu"]
    assert words
    assert all(isinstance(word, str) for word in words)


@pytest.mark.parametrize("action", ["reboot", "shutdown"])
def test_a_problem_with_power_is_a_sentence_or_nothing(machine: Machine, action: str) -> None:
    problem = machine.power_problem(action)
    assert problem is None or problem


@pytest.fixture(params=["output", "fake"])
def ring(request: pytest.FixtureRequest) -> Iterator[LogRing]:
    if request.param == "fake":
        yield FakeLog()
        return
    output = LogOutput("INFO")
    output.install()
    logging.getLogger("gateway.contract").warning("a warning")
    logging.getLogger("gateway.contract").error("an error")
    yield output
    output.remove()


def ends(lines: list[str]) -> list[str]:
    """Without time and level."""
    return [line[-9:].strip() for line in lines]


def test_the_newest_lines_come_oldest_first(ring: LogRing) -> None:
    assert ends(ring.recent(10)) == ["a warning", "an error"]
    assert ends(ring.recent(1)) == ["an error"]


def test_lines_below_the_level_are_left_out(ring: LogRing) -> None:
    assert ends(ring.recent(10, logging.ERROR)) == ["an error"]


def test_no_lines_are_no_lines(ring: LogRing) -> None:
    assert ring.recent(0) == []
