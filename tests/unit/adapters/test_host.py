"""The host adapter with real processes: nothing outlives its time-out, and no output fills the memory."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from teg.adapters.host.command import MARK, HeadAndTail, run_command
from teg.adapters.host.machine import HostMachine
from teg.domain.errors import Refused, Unavailable
from teg.domain.ports import EXIT_SIGNAL, CommandResult

CAP = 65_536


def run(*argv: str, timeout_s: float = 20.0, cap: int = CAP) -> CommandResult:
    return run_command(argv, timeout_s, cap, threading.Event())


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def alive(name: str) -> list[int]:
    """Processes with `name` among their arguments that are not just waiting to be collected."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if name.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A word to find this test's processes by."""
    return f"teg-test-{os.getpid()}-{abs(hash(request.node.name)) % 10**8}"


# --- ordinary commands -------------------------------------------------------------------------------------


def test_output_and_exit_code() -> None:
    assert run("sh", "-c", "echo out; echo err >&2; exit 3") == CommandResult(3, "out\nerr\n", False, False)


def test_arguments_are_not_seen_by_a_shell() -> None:
    assert run("echo", "$(id)", "; reboot", "*", "a b").output == "$(id) ; reboot * a b\n"


def test_the_input_is_closed() -> None:
    """Whatever the gateway's own input is: here a pipe that never ends."""
    own = os.dup(0)
    reader, writer = os.pipe()
    os.dup2(reader, 0)
    try:
        assert run("cat") == CommandResult(0, "", False, False)
    finally:
        os.dup2(own, 0)
        for descriptor in (own, reader, writer):
            os.close(descriptor)


def test_a_killed_command_has_a_negative_code() -> None:
    assert run("sh", "-c", "kill -9 $$").exit_code == -signal.SIGKILL


def test_output_that_is_no_text() -> None:
    assert run("printf", r"\377\376ok").output == "��ok"


def test_nothing_of_the_gateways_environment_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THINGSBOARD_PROVISION_DEVICE_SECRET", "hunter2")
    names = {line.partition("=")[0] for line in run("env").output.splitlines()}
    assert names == {"PATH", "LANG", "HOME", MARK}


def test_no_open_file_of_the_gateway_is_passed_on(tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w") as held:
        os.set_inheritable(held.fileno(), True)
        assert "secret" not in run("ls", "-l", "/proc/self/fd").output


def test_it_runs_humbly() -> None:
    """Last in line for the processor, first in line when memory runs out."""
    result = run("sh", "-c", "sleep 0.2; nice; cat /proc/self/oom_score_adj")
    assert result.output.split() == ["10", "1000"]


def test_limits_are_set() -> None:
    limits = run("cat", "/proc/self/limits").output
    assert [line.split()[-2] for line in limits.splitlines() if line.startswith("Max core")] == ["0"]
    assert [line.split()[-2] for line in limits.splitlines() if line.startswith("Max processes")] == ["1024"]
    assert [line.split()[-2] for line in limits.splitlines() if line.startswith("Max file size")] == ["1073741824"]


@pytest.mark.parametrize("argv", [["no-such-program-here"], ["/etc/passwd"], ["/no/such/path"], ["../../bin/ls"]])
def test_what_cannot_be_run_is_refused(argv: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Refused, match="there is no program"):
        run(*argv)


def test_a_program_beside_the_gateway_is_not_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ls").write_text("#!/bin/sh\necho planted\n")
    (tmp_path / "ls").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:.")
    assert "planted" not in run("ls", "/").output


def test_too_long_an_argument_is_transient_not_a_crash() -> None:
    with pytest.raises(Unavailable, match="Argument list too long"):
        run("echo", "x" * 3_000_000)


# --- attacks -----------------------------------------------------------------------------------------------


def test_a_command_that_ignores_sigterm_is_killed(name: str) -> None:
    result = run("sh", "-c", f"trap '' TERM; echo begun; while :; do sleep 0.1; done # {name}", timeout_s=0.5)
    assert result == CommandResult(None, "begun\n", True, False)
    assert alive(name) == []


def test_a_command_that_tidies_up_is_asked_first(tmp_path: Path) -> None:
    script = f"trap 'echo tidy; exit 0' TERM; touch {tmp_path}/ready; while :; do sleep 0.05; done"
    assert run("sh", "-c", script, timeout_s=1).output.endswith("tidy\n")


def test_grandchildren_go_with_their_group(name: str) -> None:
    script = f"(sh -c 'sleep 300; echo {name}' & sh -c 'sleep 300; echo {name}') & sleep 300"
    result = run("sh", "-c", script, timeout_s=0.5)
    assert result.timed_out
    assert alive(name) == []


def test_what_leaves_its_group_goes_too(name: str) -> None:
    script = f"setsid sh -c 'trap \"\" TERM HUP; sleep 300; echo {name}' & setsid -f sh -c 'sleep 300; echo {name}'"
    result = run("sh", "-c", f"{script}; sleep 300", timeout_s=1)
    assert result.timed_out
    assert alive(name) == []


def test_a_double_fork_into_a_new_session_goes_too(name: str) -> None:
    program = (
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        "        print('daemon', flush=True)\n"
        "        time.sleep(300)\n"
        "    os._exit(0)\n"
        "time.sleep(0.5)\n"
    )
    result = run(sys.executable, "-c", program, name)
    assert result == CommandResult(0, "daemon\n", False, False)
    assert alive(name) == []


def test_nothing_is_left_in_the_background(name: str) -> None:
    """The command itself ends at once; its child holds the output open and would run for ever."""
    result = run("sh", "-c", f"sh -c 'echo child; sleep 300; echo {name}' & sleep 0.3; echo parent")
    assert not result.timed_out and sorted(result.output.split()) == ["child", "parent"]
    assert alive(name) == []


def test_endless_output_is_capped_and_ended() -> None:
    result = run("sh", "-c", "echo first; exec yes", timeout_s=1)
    assert result.timed_out and result.truncated
    assert result.output.startswith("first\ny\n")
    assert "bytes left out] …" in result.output
    assert len(result.output.encode()) < CAP + 100


def test_head_and_tail_of_long_output_are_kept() -> None:
    result = run("seq", "1", "200000")
    assert result.exit_code == 0 and result.truncated
    assert result.output.startswith("1\n2\n3\n")
    assert result.output.endswith("\n199999\n200000\n")


def test_a_fork_bomb_is_over_with_its_time(name: str) -> None:
    script = f"bomb() {{ bomb & sleep 0.05; bomb & }}; bomb; sleep 300; : {name}"
    program = ["prlimit", "--nproc=200", "sh", "-c", script]
    result = run(*(["setpriv", "--reuid=65534", "--clear-groups"] if os.geteuid() == 0 else []), *program, timeout_s=1)
    assert alive(name) == []
    assert result.timed_out or "fork" in result.output


def test_a_process_that_closes_its_output_still_ends(name: str) -> None:
    result = run("sh", "-c", f"exec >&- 2>&-; sleep 300; : {name}", timeout_s=0.5)
    assert result == CommandResult(None, "", True, False)
    assert alive(name) == []


def test_a_stopping_gateway_does_not_wait(name: str) -> None:
    stopping = threading.Event()
    failures: list[BaseException] = []

    def command() -> None:
        try:
            run_command(["sh", "-c", f"sleep 300; : {name}"], 60, CAP, stopping)
        except Unavailable as reason:
            failures.append(reason)

    worker = threading.Thread(target=command)
    worker.start()
    wait_until(lambda: alive(name), "the command runs")
    stopping.set()
    worker.join(10)
    assert not worker.is_alive()
    assert [str(failure) for failure in failures] == ["the gateway is stopping; the command was killed"]
    assert alive(name) == []


def test_what_a_killed_gateway_left_running_is_ended_by_its_next_life(name: str, tmp_path: Path) -> None:
    """Only by its own next life: the mark names the data directory."""
    program = (
        "import pathlib, sys, threading; from teg.adapters.host.machine import HostMachine\n"
        f"host = HostMachine(pathlib.Path({str(tmp_path)!r}), threading.Event())\n"
        "host.run(['sh', '-c', 'setsid sleep 300 & sleep 300; : ' + sys.argv[1]], 60)\n"
    )
    gateway = subprocess.Popen([sys.executable, "-c", program, name], cwd=Path(__file__).parents[3])
    wait_until(lambda: len(set(alive(name)) - {gateway.pid}) == 1, "the command runs")
    gateway.kill()
    gateway.wait()
    assert alive(name), "it outlived the gateway"
    assert HostMachine(tmp_path / "other", threading.Event()).end_leftover_commands() == 0
    assert HostMachine(tmp_path.parent, threading.Event()).end_leftover_commands() == 0
    assert machine(tmp_path).end_leftover_commands() == 3
    assert alive(name) == []
    assert machine(tmp_path).end_leftover_commands() == 0


def test_no_descriptor_and_no_zombie_is_left() -> None:
    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    run("true")
    before = open_files()
    for _ in range(5):
        run("sh", "-c", "sleep 300", timeout_s=0.1)
    assert open_files() == before
    assert zombies() == []


def zombies() -> list[int]:
    """Ended children of this process that nobody has waited for; other tests' running children do not count."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit():
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if state == "Z" and int(parent) == os.getpid():
                    found.append(int(entry.name))
    return found


@pytest.mark.parametrize("sizes", [[10], [100], [101], [60, 60], [1] * 300, [1000], [50, 1, 1000, 3]])
def test_head_and_tail(sizes: list[int]) -> None:
    kept, data = HeadAndTail(100), bytes(n % 26 + 97 for n in range(sum(sizes)))
    position = 0
    for size in sizes:
        kept.add(data[position : position + size])
        position += size
    if len(data) <= 100:
        assert (kept.text(), kept.truncated) == (data.decode(), False)
    else:
        note = f"\n… [{len(data) - 100} bytes left out] …\n"
        assert (kept.text(), kept.truncated) == (data[:50].decode() + note + data[-50:].decode(), True)


def test_what_is_kept_of_endless_output_is_bounded() -> None:
    kept = HeadAndTail(100)
    for _ in range(10_000):
        kept.add(b"y\n" * 20)
    assert kept.total_bytes == 400_000
    assert sum(map(len, kept._tail)) < 100


# --- the machine -------------------------------------------------------------------------------------------


def machine(tmp_path: Path, **power: list[list[str]]) -> HostMachine:
    """Never with the real programs."""
    return HostMachine(tmp_path, threading.Event(), power=power)


def test_power_takes_the_first_program_that_works(tmp_path: Path) -> None:
    done = tmp_path / "done"
    host = machine(
        tmp_path,
        reboot=[["no-such-program"], ["sh", "-c", "echo broken >&2; exit 1"], ["touch", str(done)], ["touch", "/x"]],
    )
    assert host.power_problem("reboot") is None
    host.reboot()
    assert done.exists()


def test_power_that_does_not_work_says_what_was_tried(tmp_path: Path) -> None:
    host = machine(tmp_path, shutdown=[["sh", "-c", "echo not allowed >&2; exit 1"], ["no-such-program"]])
    with pytest.raises(Unavailable, match=r"shutdown did not work: sh -c .*: exit code 1 not allowed"):
        host.shutdown()


def test_power_without_a_program_is_known_beforehand(tmp_path: Path) -> None:
    host = machine(tmp_path, reboot=[["no-such-program"], ["nor-this"]])
    assert host.power_problem("reboot") == (
        "there is neither 'no-such-program' nor 'nor-this'; a gateway in a container cannot act on its host"
    )


def test_exit_asks_this_process_to_stop(tmp_path: Path) -> None:
    program = (
        "import pathlib, threading; from teg.adapters.host.machine import HostMachine\n"
        f"HostMachine(pathlib.Path({str(tmp_path)!r}), threading.Event()).exit_gateway()\n"
        "threading.Event().wait(10)\n"
    )
    project = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", program], cwd=project, timeout=30)
    assert done.returncode == -EXIT_SIGNAL


def test_disk(tmp_path: Path) -> None:
    total, free = machine(tmp_path).disk()
    assert total > free > 0
    with pytest.raises(Unavailable):
        machine(tmp_path / "gone").disk()


def test_sys_info_has_the_references_shape(tmp_path: Path) -> None:
    (tmp_path / "stat").write_text("cpu  10 0 5\ncpu0 10 0 5\nctxt 77\n\n")
    host = HostMachine(tmp_path, threading.Event(), proc=tmp_path)
    assert host.sys_info() == {"cpu": ["10", "0", "5"], "cpu0": ["10", "0", "5"], "ctxt": ["77"]}
    assert "cpu" in machine(tmp_path).sys_info()
    with pytest.raises(Unavailable):
        HostMachine(tmp_path, threading.Event(), proc=tmp_path / "gone").sys_info()
