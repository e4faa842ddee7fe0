"""docs/settings.md and .env.example say what the settings are, and nothing else."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from teg.settings import InvalidSettings, Settings, read_env_file
from tests.support.environments import REQUIRED, ROOT, read, variables_read

ROW = re.compile(r"^\| `([A-Z_]+)` \| (.*?) \| (.+) \|$", re.MULTILINE)


DOCUMENTED = {
    name: (default, meaning) for name, default, meaning in ROW.findall((ROOT / "docs" / "settings.md").read_text())
}


EXAMPLE = (ROOT / ".env.example").read_text()


EXAMPLE_LINES = dict(re.findall(r"^#?([A-Z_]+)=(.*)$", EXAMPLE, re.MULTILINE))


#: Worked out by the program; tested below.
IN_WORDS = {
    "THINGSBOARD_DEVICE_NAME",
    "TEG_DATA_PATH",
    "TEG_ARCHIVE_MAX_BYTES",
    "TEG_CONTROLLER_DOCKERCONTEXT_PATH",
    "TEG_CONTROLLER_CPU_PERCENT",
}


def test_every_variable_is_documented_and_no_other() -> None:
    assert set(DOCUMENTED) == variables_read()
    assert set(EXAMPLE_LINES) == variables_read()


def literal(default: str) -> str | None:
    found = re.fullmatch(r"`([^`]+)`", default)
    return found.group(1) if found else None


@pytest.mark.parametrize("name", sorted(variables_read() - set(REQUIRED) - IN_WORDS))
def test_the_documented_default_is_the_default(name: str) -> None:
    """Setting it to what the page says changes nothing."""
    default = DOCUMENTED[name][0]
    text = literal(default) or ""
    assert text or default == "none", f"{name}: neither a literal nor 'none': {default}"
    text = text.replace("$TEG_CONTROLLER_DATA_PATH", str(read().controller_data_path))
    text = text.replace("$TEG_DATA_PATH", str(read().data_path))
    assert read(**{name: text}) == read()


def test_the_defaults_in_words() -> None:
    assert set(IN_WORDS) == {n for n, (default, _) in DOCUMENTED.items() if default not in ("none", "required")} - {
        n for n, (default, _) in DOCUMENTED.items() if literal(default)
    }
    assert read().data_path == ROOT / "data"
    assert read(STATE_DIRECTORY="/var/lib/site:/var/lib/other").data_path == Path("/var/lib/site")
    assert read().queue_url == f"sqlite://{ROOT}/huey_data/huey.db"
    assert read().device_name == os.uname().nodename
    assert read().controller_cpu_percent == 75 * (os.cpu_count() or 1)
    assert read(TEG_CONTROLLER_GIT_PATH="/srv/c/.git").controller_docker_context == Path("/srv/c/docker")
    partition = os.statvfs(ROOT)
    assert read().archive_max_bytes == partition.f_frsize * partition.f_blocks // 4


def test_the_required_ones_are_marked_and_given_an_example() -> None:
    assert {name for name, (default, _) in DOCUMENTED.items() if default == "required"} == set(REQUIRED)
    assert set(re.findall(r"^([A-Z_]+)=.+$", EXAMPLE, re.MULTILINE)) == set(REQUIRED)
    for name in REQUIRED:
        left = {key: value for key, value in REQUIRED.items() if key != name}
        with pytest.raises(InvalidSettings, match=f"{name} is not set"):
            Settings.from_environment(left)


def test_the_example_shows_the_documented_defaults() -> None:
    for name, (default, _) in DOCUMENTED.items():
        text = literal(default)
        if name not in REQUIRED:
            assert EXAMPLE_LINES[name] == (text if text and "$" not in text else ""), name


def test_the_example_works_as_it_is_and_with_every_line_uncommented(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text(EXAMPLE)
    as_it_is = Settings.from_environment(read_env_file(path))
    path.write_text(re.sub(r"^#([A-Z_]+=)", r"\1", EXAMPLE, flags=re.MULTILINE))
    assert set(read_env_file(path)) == variables_read()
    assert Settings.from_environment(read_env_file(path)) == as_it_is


def test_settings_need_nothing_but_the_standard_library() -> None:
    """`python -S` has no site packages: the console and scripts may read settings on a half-installed machine."""
    code = (
        "from teg import settings; print(settings.Settings.from_environment({'TB_HOST': 'h', 'TB_PORT': '1'}).tb_host)"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "h\n", done.stderr
