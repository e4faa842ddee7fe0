"""What only the plain process does: its command, its environment, its orphans."""

import subprocess
import sys
from pathlib import Path

import pytest

from teg.adapters.process_runtime import MAX_OUTPUT_BYTES, ProcessRuntime
from teg.domain.errors import Refused
from teg.domain.supervision.runtime import ABSENT, StartFailed
from tests.support.running import wait_until


def make(tmp_path: Path, command: str, **options: str) -> ProcessRuntime:
    return ProcessRuntime(
        command, tmp_path / "runtime", data_path=tmp_path / "data", logs_path=tmp_path / "logs", **options
    )


def python(program: str) -> str:
    return f'{sys.executable} -c "{program}"'


def output(runtime: ProcessRuntime) -> list[str]:
    wait_until(lambda: not runtime.observe().running, 10, "its end")
    return runtime.logs(100)


def test_the_command_itself_is_a_version(tmp_path: Path) -> None:
    runtime = make(tmp_path, python("import os; print(os.getcwd())"))
    assert runtime.has_image("local") and not runtime.has_image("v1")
    runtime.start("local")
    assert output(runtime) == [str(Path.cwd())]


def test_it_learns_its_directories_and_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THINGSBOARD_PROVISION_DEVICE_SECRET", "hush")
    names = ["TEG_CONTROLLER_DATA_PATH", "TEG_CONTROLLER_LOGS_PATH", "TEG_CONTROLLER_VERSION"]
    names.append("THINGSBOARD_PROVISION_DEVICE_SECRET")
    runtime = make(tmp_path, python(f"import os; print([os.environ.get(n) for n in {names}])"), own_version="v7")
    runtime.start("v7")
    assert output(runtime) == [str([f"{tmp_path}/data", f"{tmp_path}/logs", "v7", None])]
    assert (tmp_path / "data").is_dir() and (tmp_path / "logs").is_dir()


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    runtime = make(tmp_path, "no-such-program --flag")
    with pytest.raises(StartFailed, match="no-such-program"):
        runtime.start("local")
    assert runtime.observe() == ABSENT


def test_no_command_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="TEG_CONTROLLER_COMMAND"):
        make(tmp_path, "  ")


def test_its_children_end_with_it(tmp_path: Path) -> None:
    program = "import subprocess, time; print(subprocess.Popen(['sleep', '600']).pid, flush=True); time.sleep(600)"
    runtime = make(tmp_path, python(program))
    runtime.start("local")
    wait_until(lambda: runtime.logs(1), 10, "the child's number")
    child = int(runtime.logs(1)[0])
    runtime.stop(5)
    wait_until(lambda: _state(child) in ("", "Z"), 10, "the end of the child")


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return ""


def test_a_number_that_was_given_to_another_process_is_not_touched(tmp_path: Path) -> None:
    """After a reboot the file still names a number, which by now belongs to somebody else."""
    runtime = make(tmp_path, python("import time; print(1, flush=True); time.sleep(600)"))
    runtime.start("local")
    wait_until(lambda: runtime.logs(1), 10, "more than the clock tick in which it started")
    runtime.stop(5)
    run_path = tmp_path / "runtime" / "running.json"
    with subprocess.Popen(["sleep", "600"]) as stranger:
        try:
            text = run_path.read_text()
            run_path.write_text(text.replace(text[text.index(":") + 1 : text.index(",")], str(stranger.pid), 1))
            again = make(tmp_path, python("pass"))
            assert not again.observe().running
            again.stop(1)
            assert stranger.poll() is None
        finally:
            stranger.kill()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": 1}', b'{"unknown": 1}', b"null", b"7"])
def test_a_spoiled_note_of_the_process_is_no_process(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "runtime").mkdir()
    (tmp_path / "runtime" / "running.json").write_bytes(content)
    assert make(tmp_path, python("pass")).observe() == ABSENT


def test_output_is_bounded(tmp_path: Path) -> None:
    later = "[(time.sleep(0.05), print('y', flush=True)) for _ in range(9999)]"
    program = f"import time; print('x' * 5000000, flush=True); {later}"
    runtime = make(tmp_path, python(program))
    runtime.start("local")
    log = tmp_path / "runtime" / "output.log"
    wait_until(lambda: log.stat().st_size > MAX_OUTPUT_BYTES, 10, "much output")
    runtime.wait_for_change(0.1)
    wait_until(lambda: runtime.logs(1) == ["y"], 10, "output after the cut")
    assert log.stat().st_size < MAX_OUTPUT_BYTES
    runtime.close()


def test_images_are_refused_in_plain_words(tmp_path: Path) -> None:
    runtime = make(tmp_path, python("pass"))
    with pytest.raises(Refused, match="assign a Git version"):
        runtime.load_archive("v1", tmp_path)
    with pytest.raises(Refused, match="assign a Git version"):
        runtime.pull("v1", "host/x:1")


def test_close_ends_the_process(tmp_path: Path) -> None:
    runtime = make(tmp_path, python("import time; time.sleep(600)"))
    runtime.start("local")
    runtime.close()
    assert not make(tmp_path, python("pass")).observe().running
