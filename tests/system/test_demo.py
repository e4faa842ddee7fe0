"""`make demo` as a newcomer sees it: real processes, real MQTT over TLS, an account at the end."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.running import wait_until

ROOT = Path(__file__).resolve().parents[2]
ACCOUNT = re.compile(r"^account: recorded (\d+), delivered (\d+), lost (\d+), duplicated (\d+)$", re.MULTILINE)


def start(directory: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "teg.simulator.demo"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(directory), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def processes_with(text: str) -> list[int]:
    """Pids of everything that still runs with `text` in its command line or environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if text.encode() in (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]


def account(output: str) -> tuple[int, ...]:
    match = ACCOUNT.search(output)
    assert match, output
    return tuple(int(number) for number in match.groups())


def test_a_script_of_blows_ends_by_itself_with_nothing_lost(tmp_path: Path) -> None:
    with start(tmp_path, DEMO_SECONDS="22") as demo:
        output, _ = demo.communicate(timeout=120)
    assert demo.returncode == 0, output
    recorded, delivered, lost, _ = account(output)
    assert recorded == delivered > 50 and lost == 0
    assert re.search(r"^first arrival [\d.]+ s after the start$", output, re.MULTILINE)
    assert "connected" in output and "load_1m=" in output and output.isascii()
    for survived in ("outage x 1", "kill of the gateway x 1", "crash of the controller x 1", "full disk x 1"):
        assert survived in output
    assert "huey.db.damaged" not in output, "a full disk is waited for, not mended by new files"
    for did in ("gateway: connected to", "file 'note' written", "the call was answered after", "start of controller"):
        assert did in output
    assert list(tmp_path.iterdir()) == []  # nothing lost: nothing is kept
    wait_until(lambda: not processes_with(str(tmp_path)), 20, "the end of every process")


@pytest.mark.torture
def test_eight_kinds_of_blow_lose_nothing(tmp_path: Path) -> None:
    with start(tmp_path, DEMO_SECONDS="70") as demo:
        output, _ = demo.communicate(timeout=200)
    assert demo.returncode == 0, output
    survived = re.search(r"^survived: (.*)$", output, re.MULTILINE)
    assert survived and survived[1].count(" x ") >= 7, output
    assert "update to version v2 is done" in output, output
    assert "update to version v3 failed: version v3 did not stay up" in output, output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_by_hand_drains_and_accounts(tmp_path: Path, number: signal.Signals) -> None:
    with start(tmp_path, DEMO_SECONDS="") as demo:
        assert demo.stdout
        for line in demo.stdout:
            if re.search(r"server [1-9]", line):
                break
        demo.send_signal(number)
        output, _ = demo.communicate(timeout=90)
    assert demo.returncode == 0, output
    recorded, delivered, lost, _ = account(output)
    assert recorded == delivered > 0 and lost == 0
    wait_until(lambda: not processes_with(str(tmp_path)), 20, "the end of every process")


def test_keys_strike_and_q_gives_the_account(tmp_path: Path) -> None:
    """In a real terminal: the legend is there, a kill is survived, `q` ends with the account."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TMPDIR": str(tmp_path), "TERM": "xterm", "COLUMNS": "160", "LINES": "50"}
    demo = subprocess.Popen(
        [sys.executable, "-m", "teg.simulator.demo"], cwd=ROOT, env=environment, stdin=theirs, stdout=theirs
    )
    os.close(theirs)
    seen = Terminal(ours)
    seen.wait_for("kill -9 the gateway")
    seen.wait_for("connected,")
    os.write(ours, b"k")
    seen.wait_for("kill -9 of the gateway; a second later")
    seen.wait_for("gateway started")
    os.write(ours, b"q")
    seen.wait_for("survived: kill of the gateway x 1")
    assert demo.wait(60) == 0
    seen.wait_for("lost 0")
    os.close(ours)
    wait_until(lambda: not processes_with(str(tmp_path)), 20, "the end of every process")


class Terminal:
    """What was drawn so far, without the escapes."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._text = ""

    def wait_for(self, text: str, timeout_s: float = 60) -> None:
        deadline_s = time.monotonic() + timeout_s
        while text not in self._text:
            assert time.monotonic() < deadline_s, f"{text!r} was not drawn: {self._text[-2000:]}"
            if select.select([self._descriptor], [], [], 0.2)[0]:
                drawn = os.read(self._descriptor, 65536).decode(errors="replace")
                self._text += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", drawn)


def test_a_gateway_that_ends_by_itself_is_shown_and_everything_is_stopped(tmp_path: Path) -> None:
    with start(tmp_path, DEMO_SECONDS="600") as demo:
        assert demo.stdout
        for line in demo.stdout:
            if re.search(r"server [1-9]", line):
                break
        [victim] = [pid for pid in processes_with(str(tmp_path)) if b"huey_consumer" in cmdline(pid)]
        os.kill(victim, signal.SIGKILL)
        output, _ = demo.communicate(timeout=90)
    assert demo.returncode == 1
    assert "gateway ended by itself with status -9; its last lines:" in output
    kept = re.search(r"^everything is kept in (.+)$", output, re.MULTILINE)
    assert kept and (Path(kept[1]) / "gateway" / "gateway.db").exists()
    assert (Path(kept[1]) / "logs" / "gateway.log").read_text().splitlines()[-1] in output
    wait_until(lambda: not processes_with(str(tmp_path)), 20, "the end of every process")


def cmdline(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_a_wrong_duration_is_said(tmp_path: Path) -> None:
    with start(tmp_path, DEMO_SECONDS="soon") as demo:
        output, _ = demo.communicate(timeout=30)
    assert demo.returncode == 1 and "DEMO_SECONDS='soon' is not a number of seconds" in output
    assert list(tmp_path.iterdir()) == []
