"""The settings of the demo's processes, and nothing of what the user has set for a real gateway."""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from teg.simulator.demo.places import Places
from teg.simulator.demo.versions import FIRST, has_git

ROOT = Path(__file__).resolve().parents[3]
#: Beside this Python, in the virtual environment.
GATEWAY_COMMAND = (Path(sys.executable).with_name("huey_consumer"), "gateway.huey")
#: Before our process id and a command: it ends when we do.
BOUND_TO_US = (sys.executable, "-m", "teg.simulator.demo.bound")


def gateway_environment(places: Places, host: str, port: int, ca_file: Path, page: str) -> dict[str, str]:
    """`page` is the address of its status page."""
    settings = {
        "TB_HOST": host,
        "TB_PORT": str(port),
        "THINGSBOARD_CA_CERT": str(ca_file),
        "THINGSBOARD_ACCESS_TOKEN": str(places.token_file),
        "TEG_DATA_PATH": str(places.gateway_data),
        "TEG_QUEUE_URL": f"sqlite://{places.queue}/huey.db",
        "TEG_CONTROLLER_DATA_PATH": str(places.controller_data),
        "TEG_CONTROLLER_LOGS_PATH": str(places.controller_logs),
        "TEG_CONTROLLER_RUNTIME": "process",
        "TEG_CONTROLLER_COMMAND": f"{sys.executable} -u main.py",
        "TEG_CONTROLLER_ENVIRONMENT": f"PYTHONPATH={ROOT}",
        "TEG_DEFAULT_CONTROLLER_VERSION": FIRST,
        "TEG_OTA_TRIAL_S": "3",
        "TEG_CONSOLE": page,
        "TEG_START_GRACE_S": "5",
    }
    if has_git():
        settings["TEG_CONTROLLER_GIT_PATH"] = str(places.repository / ".git")
    environment = neutral_environment(os.environ, ROOT / ".env")
    return {**environment, "PYTHONPATH": str(ROOT), **settings}


def neutral_environment(environment: Mapping[str, str], env_file: Path) -> dict[str, str]:
    """Without what the user has set for a real gateway, here or in `.env`: an empty variable means "not set"."""
    text = env_file.read_text(errors="replace") if env_file.exists() else ""
    names = {*environment, *re.findall(r"^\s*(?:export\s+)?(\w+)\s*=", text, re.MULTILINE)}
    ours = [name for name in names if name.startswith(("TB_", "TEG_", "THINGSBOARD_")) or name == "LOG_LEVEL"]
    return {**environment, **dict.fromkeys(ours, "")}
