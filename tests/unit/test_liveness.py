"""Who is stuck, and who only waits: the rule on driven states, and on the kernel's view of real threads."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from teg.adapters.own_process import OwnProcess, thread_state
from teg.domain.liveness import CHECK_S, CIRCLING_CHECKS, PROOF_S, STUCK_CHECKS, UNLIMITED, Liveness, Pulse, ThreadState
from tests.support.running import wait_until

RUNS = ThreadState(runs=1, waits_for_disk=False)


class Kernel:
    """What the kernel says of each thread; `None` for one that has ended."""

    def __init__(self) -> None:
        self.state: ThreadState | None = RUNS

    def __call__(self, _: int) -> ThreadState | None:
        return self.state

    def runs(self, disk: bool = False) -> None:
        self.state = ThreadState(0 if self.state is None else self.state.runs + 1, disk)


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def liveness() -> Liveness:
    return Liveness()


def checks(liveness: Liveness, kernel: Callable[[int], ThreadState | None], number: int) -> list[Pulse]:
    """The first one that finds something; none of them may have."""
    for _ in range(number):
        if found := liveness.check(kernel):
            return found
    return []


def test_blocked_for_three_checks_after_the_last_note(liveness: Liveness, kernel: Kernel) -> None:
    pulse = liveness.watch("a worker")
    assert checks(liveness, kernel, STUCK_CHECKS) == [], "the first one sees the note"
    assert liveness.check(kernel) == [pulse]
    assert (STUCK_CHECKS + 1) * CHECK_S <= 60, "noticed within a minute of the note"


def test_who_notes_anything_gets_on(liveness: Liveness, kernel: Kernel) -> None:
    liveness.watch("a worker")
    for _ in range(100):
        assert checks(liveness, kernel, STUCK_CHECKS) == []
        liveness.note("the same task", 0.0)
    for _ in range(100):
        assert checks(liveness, kernel, STUCK_CHECKS) == []
        liveness.progress()


def test_a_wait_lasts_as_long_as_it_was_said_to(liveness: Liveness, kernel: Kernel) -> None:
    pulse = liveness.watch("a worker")
    pulse.note("stops a container", 8 * CHECK_S)
    assert checks(liveness, kernel, 8 + STUCK_CHECKS) == []
    assert liveness.check(kernel) == [pulse]


def test_what_waits_for_an_event_that_may_not_come_is_not_stuck(liveness: Liveness, kernel: Kernel) -> None:
    liveness.watch("the session").note("waits", UNLIMITED)
    assert checks(liveness, kernel, 10_000) == []


def test_who_is_run_is_not_blocked_but_may_go_round_in_circles(liveness: Liveness, kernel: Kernel) -> None:
    pulse = liveness.watch("a worker")
    for _ in range(CIRCLING_CHECKS):
        kernel.runs()
        assert liveness.check(kernel) == []
    kernel.runs()
    assert liveness.check(kernel) == [pulse]


def test_a_disk_that_does_not_answer_stops_the_judging_of_all(liveness: Liveness) -> None:
    """Whoever waits for the one that waits for the disk is not stuck either; when it answers, the counting goes on."""
    states = {1: ThreadState(5, waits_for_disk=True), 2: RUNS}
    first, second = liveness.watch("writes"), liveness.watch("waits for the lock of the first")
    first.native_id, second.native_id = 1, 2
    assert checks(liveness, states.get, 1000) == []
    states[1] = ThreadState(6, waits_for_disk=False)
    assert liveness.check(states.get) == [second], "it has not moved in all that time"


def test_a_busy_disk_is_no_hung_one(liveness: Liveness) -> None:
    """Found in the disk at each check, and run in between: that thread does not excuse another."""
    states = {1: ThreadState(0, waits_for_disk=True), 2: RUNS}
    first, second = liveness.watch("writes"), liveness.watch("stuck")
    first.native_id, second.native_id = 1, 2
    for runs in range(STUCK_CHECKS):
        states[1] = ThreadState(runs, waits_for_disk=True)
        assert liveness.check(states.get) == []
    states[1] = ThreadState(STUCK_CHECKS, waits_for_disk=True)
    assert liveness.check(states.get) == [second]


def test_a_thread_that_has_ended_without_saying_so(liveness: Liveness, kernel: Kernel) -> None:
    pulse = liveness.watch("the watch of the inbox")
    liveness.check(kernel)
    kernel.state = None
    assert checks(liveness, kernel, 10) == [pulse]
    liveness.forget(pulse)
    assert checks(liveness, kernel, 10) == []


def test_one_late_check_counts_once(liveness: Liveness, kernel: Kernel) -> None:
    """Stopped by SIGSTOP, or asleep with the lid closed: nobody ran, and nobody is stuck."""
    liveness.watch("a worker")
    liveness.check(kernel)
    # Hours pass here without a check: there is no clock in the rule that could know.
    assert liveness.check(kernel) == []
    liveness.note("goes on")
    assert checks(liveness, kernel, STUCK_CHECKS) == []


# --- the proof ---------------------------------------------------------------------------------------------


def test_proven_by_a_commit_and_a_taken_task_since_the_last_proof(liveness: Liveness) -> None:
    assert not liveness.proven()
    liveness.committed()
    assert not liveness.proven()
    liveness.took()
    assert liveness.proven()
    assert not liveness.proven()
    liveness.took()
    assert not liveness.proven()
    liveness.committed()
    assert liveness.proven()


@pytest.mark.parametrize("ceased", ["the last commit", "the last task taken"])
def test_threads_that_all_get_on_without_getting_anything_done(liveness: Liveness, kernel: Kernel, ceased: str) -> None:
    liveness.committed()
    liveness.took()
    found: list[Pulse] = []
    number = 0
    while not found:
        number += 1
        (liveness.took if ceased == "the last commit" else liveness.committed)()
        found = liveness.check(kernel)
    assert [pulse.what for pulse in found] == [ceased]
    assert number == PROOF_S / CHECK_S + STUCK_CHECKS + 1


# --- real threads ------------------------------------------------------------------------------------------


@pytest.fixture
def blocked() -> Iterator[threading.Thread]:
    goes_on = threading.Event()
    thread = threading.Thread(target=stands_here, args=(goes_on,), name="stands")
    thread.start()
    wait_until(lambda: "stands_here" in place_of(thread), 10, "the thread has begun")
    yield thread
    goes_on.set()
    thread.join()


def stands_here(goes_on: threading.Event) -> None:
    goes_on.wait()


def place_of(thread: threading.Thread) -> str:
    return OwnProcess().stacks().get(thread.ident or 0, ("", ""))[1]


def runs_of(thread: threading.Thread) -> int:
    state = thread_state(thread.native_id or 0)
    assert state is not None
    return state.runs


def test_a_blocked_thread_is_not_run(blocked: threading.Thread) -> None:
    before = runs_of(blocked)
    for _ in range(100):
        time.sleep(0.001)  # this thread is run a hundred times meanwhile
    assert runs_of(blocked) - before <= 1, "at most its way into the wait"


def test_a_thread_that_waits_in_small_pieces_is_run() -> None:
    me = threading.current_thread()
    before = runs_of(me)
    for _ in range(10):
        time.sleep(0.001)
    assert runs_of(me) - before >= 10


def test_no_thread_of_that_number() -> None:
    gone = threading.Thread(target=lambda: None)
    gone.start()
    gone.join()
    wait_until(lambda: thread_state(gone.native_id or 0) is None, 10, "the kernel has forgotten the thread")


def test_where_a_thread_stands(blocked: threading.Thread) -> None:
    name, place = OwnProcess().stacks()[blocked.ident or 0]
    assert name == "stands"
    assert "test_liveness.py" in place
    assert place.index("stands_here") < place.rindex(" wait"), "the innermost call last"
