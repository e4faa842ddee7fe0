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
import requests

from tests.support.running import wait_until

ROOT = Path(__file__).resolve().parents[2]
#: In the order of the account.
EIGHT_KINDS = (
    "bad update",
    "corrupted page",
    "crash of the controller",
    "full disk",
    "good update",
    "kill of the gateway",
    "outage",
    "power cut",
)
GATEWAY_DID = (
    "connected to ",
    "file 'note' written",
    "start of controller v1: it ended",
    r"written or cut by another program; it is kept in",
    r"salvage of .* 0 undelivered ones are lost",
    "disk I/O error",
    "update to version v2 is done",
    "update to version v3 failed: version v3 did not stay up",
)
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


def wait_for_arrivals(demo: subprocess.Popen[str]) -> None:
    assert demo.stdout
    assert any(re.search(r" s  recorded .*  server [1-9]", line) for line in demo.stdout)


def test_the_status_page_is_open_meanwhile(tmp_path: Path) -> None:
    with start(tmp_path, DEMO_SECONDS="") as demo:
        assert demo.stdout
        url = next(found[1] for line in demo.stdout if (found := re.search(r"status page: (http://\S+)", line)))
        answers = requests.Session()
        wait_until(lambda: is_up(answers, url), 30, "the status page")
        assert "<html" in answers.get(url, timeout=20).text
        wait_for_arrivals(demo)
        demo.send_signal(signal.SIGINT)
        output, _ = demo.communicate(timeout=90)
    assert demo.returncode == 0, output


def is_up(session: requests.Session, url: str) -> bool:
    try:
        return session.get(f"{url}healthz", timeout=20).ok
    except requests.ConnectionError:
        return False


def account(output: str) -> tuple[int, ...]:
    match = ACCOUNT.search(output)
    assert match, output
    return tuple(int(number) for number in match.groups())


@pytest.mark.slow
def test_eight_kinds_of_blow_lose_nothing(tmp_path: Path) -> None:
    """The whole script; a slow machine takes longer for it, and plays it all the same."""
    with start(tmp_path, DEMO_SECONDS="32") as demo:
        output, _ = demo.communicate(timeout=280)
    assert demo.returncode == 0, output
    recorded, delivered, lost, _ = account(output)
    assert recorded == delivered > 50 and lost == 0
    assert re.search(r"^first arrival [\d.]+ s after the start$", output, re.MULTILINE)
    assert "connected" in output and "load_1m=" in output and output.isascii()
    survived = re.search(r"^survived: 8 blows of 8 kinds: (.*)$", output, re.MULTILINE)
    assert survived and survived[1].split(", ") == [f"{kind} x 1" for kind in EIGHT_KINDS], output
    for key in "nkcxpdgb":
        assert re.search(rf"^  ok {key}: survived, [\d.]+ s after the blow$", output, re.MULTILINE), output
    for did in GATEWAY_DID:
        assert re.search(rf"^     gateway: .*{did}", output, re.MULTILINE), f"{did}: {output}"
    assert "the call was answered after" in output and "{'message': 'Pong'}" in output
    assert "huey.db.damaged" not in output, "a full disk is waited for, not mended by new files"
    assert list(tmp_path.iterdir()) == []  # nothing lost: nothing is kept
    wait_until(lambda: not processes_with(str(tmp_path)), 20, "the end of every process")


def test_nothing_of_it_runs_on_when_the_demo_is_killed(tmp_path: Path) -> None:
    with start(tmp_path, DEMO_SECONDS="") as demo:
        wait_for_arrivals(demo)
        assert any(b"main.py" in cmdline(pid) for pid in processes_with(str(tmp_path)))
        demo.kill()
    wait_until(lambda: not processes_with(str(tmp_path)), 60, "the end of every process")


def test_a_reader_that_goes_away_ends_it(tmp_path: Path) -> None:
    """`make demo | head`"""
    with start(tmp_path, DEMO_SECONDS="") as demo:
        wait_for_arrivals(demo)
        assert demo.stdout
        demo.stdout.close()
        assert demo.wait(90) == 0
    wait_until(lambda: not processes_with(str(tmp_path)), 20, "the end of every process")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_by_hand_drains_and_accounts(tmp_path: Path, number: signal.Signals) -> None:
    with start(tmp_path, DEMO_SECONDS="") as demo:
        wait_for_arrivals(demo)
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
    seen.wait_for("survived: 1 blow of 1 kind: kill of the gateway x 1")
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
        wait_for_arrivals(demo)
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
