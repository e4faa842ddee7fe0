"""The rooms keep their walls: who may import whom, who reads the environment, who catches everything, how long."""

from pathlib import Path

import pytest

from tests.support import architecture
from tests.support.architecture import Exceptions

ROOT = Path(__file__).resolve().parents[2]

ALLOWED = Exceptions(
    environment={
        "controller_client/teg_controller.py": "runs in the controller's process, where our settings do not exist",
        "teg/adapters/git_repository/process.py": "hands PATH, proxies and the SSH agent on to Git, and nothing else",
        "teg/simulator/demo/__main__.py": "DEMO_SECONDS and the kind of terminal",
        "teg/simulator/desk.py": "hands its own environment on to the gateway and the controller on the desk",
        "teg/simulator/demo/environment.py": "hands its own environment on to the processes of the demo",
    },
    broad={
        "teg/domain/rpc/dispatcher.py:_outcome": "a call is answered whatever its method raised; the trace is logged",
        "teg/adapters/log_handlers.py:emit": "logging's own way: a line that cannot be written is shown by handleError",
        "teg/console/page/looking.py:_run": "a picture that fails must not end the pictures to come",
        "teg/adapters/docker_engine/client.py:run": "handed to the thread that asked, which raises it",
        "tasks/consumer.py:_outlive": "the scheduler's loop: one line that raises must not silence the others",
        "producers/controller_feed.py:_run": "a producer's loop: it must outlive every surprise",
        "producers/controller_watch.py:_run": "a producer's loop: it must outlive every surprise",
        "producers/self_watch.py:_run": "a producer's loop: it must outlive every surprise",
        "teg/adapters/mqtt_session/session.py:_any_connection": "without this thread a gateway is lost until a visit",
        "producers/network_watch.py:_run": "a producer's loop: it must outlive every surprise",
        "producers/mqtt_listener.py:received": "a producer's entry on the network thread: an exception would end it",
        "producers/mqtt_listener.py:connected": "a producer's entry on the network thread: an exception would end it",
    },
)


def test_every_room_imports_only_what_it_may() -> None:
    assert architecture.import_faults(ROOT) == []


def test_no_modules_import_one_another() -> None:
    assert architecture.circle_faults(ROOT) == []


def test_subjects_import_only_subjects_below_them_and_by_their_face() -> None:
    assert architecture.subject_faults(ROOT) == []


def test_only_settings_reads_the_environment() -> None:
    assert architecture.environment_faults(ROOT, ALLOWED) == []


def test_nobody_catches_everything_without_a_reason() -> None:
    assert architecture.broad_except_faults(ROOT, ALLOWED) == []


def test_functions_and_modules_stay_short() -> None:
    assert architecture.length_faults(ROOT) == []


def test_there_is_at_least_as_much_test_as_code() -> None:
    code = sum(architecture.file_lengths(ROOT, architecture.PRODUCT).values())
    tests = sum(architecture.file_lengths(ROOT, ("tests",)).values())
    assert tests >= code, f"{tests} lines of tests for {code} lines of code"


def test_no_test_folder_is_named_after_a_room() -> None:
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()}
    assert not folders & set(architecture.ROOMS)
    assert not list((ROOT / "tests").rglob("__init__.py"))


# --- the checker itself, on a tree with planted faults


def plant(root: Path, file: str, text: str) -> Path:
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return root


PLANTED_IMPORTS = [
    ("teg/domain/rpc/calls.py", "import huey", "domain imports huey"),
    ("teg/domain/rpc/calls.py", "from paho.mqtt import client", "domain imports paho"),
    ("teg/domain/rpc/calls.py", "import sqlite3", "teg/domain/ imports sqlite3"),
    ("teg/domain/rpc/calls.py", "def f():\n    import subprocess", "teg/domain/ imports subprocess"),
    (
        "teg/domain/rpc/calls.py",
        "from teg.adapters.inbox import Inbox",
        "domain imports teg.adapters.inbox",
    ),
    (
        "teg/domain/rpc/calls.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import tasks.queue",
        "domain imports tasks",
    ),
    ("teg/settings.py", "from teg.domain import errors", "settings imports teg.domain.errors"),
    ("teg/settings.py", "import orjson", "settings imports orjson"),
    ("teg/adapters/inbox.py", "from teg.adapters.tls import context", "an adapter imports another adapter"),
    ("teg/adapters/inbox.py", "from teg.adapters import tls", "an adapter imports another adapter"),
    ("teg/adapters/inbox.py", "from . import tls", "an adapter imports another adapter"),
    ("teg/adapters/inbox.py", "import huey", "adapters imports huey"),
    ("teg/adapters/inbox.py", "import docker, paho", "more than one library: docker, paho"),
    ("teg/adapters/host/machine.py", "from ..tls import context", "an adapter imports another adapter"),
    (
        "teg/adapters/inbox.py",
        "from producers import controller_feed",
        "adapters imports producers.controller_feed",
    ),
    ("tasks/rpc.py", "from teg.adapters.inbox import Inbox", "tasks imports teg.adapters.inbox"),
    ("tasks/rpc.py", "import gateway", "tasks imports gateway"),
    ("tasks/rpc.py", "from huey.api import Task", "tasks imports huey"),
    ("tasks/queue.py", "import redis", "tasks imports redis"),
    ("producers/feed.py", "import huey", "producers imports huey"),
    (
        "producers/feed.py",
        "from teg.adapters.inbox import Inbox",
        "producers imports teg.adapters.inbox",
    ),
    (
        "gateway.py",
        "from teg.simulator.server import ThingsBoard",
        "gateway imports teg.simulator.server",
    ),
    ("teg/wiring/core.py", "import gateway", "teg.wiring imports gateway"),
    ("teg/console/main.py", "from teg.wiring.core import Core", "console imports teg.wiring.core"),
    ("tasks/rpc.py", "from teg.wiring.core import Core", "tasks imports teg.wiring.core"),
    ("gateway.py", "import tests.support", "gateway imports tests.support"),
    ("teg/simulator/thingsboard/session.py", "import gateway", "simulator imports gateway"),
    ("teg/simulator/thingsboard/session.py", "import huey", "simulator imports huey"),
    ("teg/console/main.py", "import producers.feed", "console imports producers.feed"),
    (
        "controller_client/client.py",
        "import teg.domain.records",
        "controller_client imports teg.domain.records",
    ),
    ("controller_client/client.py", "import orjson", "controller_client imports orjson"),
]


@pytest.mark.parametrize(("file", "text", "fault"), PLANTED_IMPORTS)
def test_a_planted_import_is_caught(tmp_path: Path, file: str, text: str, fault: str) -> None:
    faults = architecture.import_faults(plant(tmp_path, file, text))
    assert len(faults) == 1
    assert fault in faults[0]
    assert faults[0].startswith(file)


INNOCENT = [
    (
        "teg/domain/rpc/calls.py",
        "import json, orjson\nfrom teg.domain.errors import Refused\nfrom . import errors",
    ),
    (
        "teg/adapters/inbox.py",
        "import sqlite3, orjson, docker\nfrom teg.domain.errors import Refused\nimport teg.settings",
    ),
    (
        "teg/adapters/host/machine.py",
        "from teg.adapters.host.command import run\nfrom .command import run\nfrom . import command",
    ),
    (
        "tasks/huey_app.py",
        "import huey\nfrom huey.api import Task\nfrom teg.settings import Settings\nfrom tasks import lanes",
    ),
    ("tasks/storage.py", "import redis, psycopg, orjson, huey"),
    ("producers/feed.py", "from tasks.rpc import handle_rpc\nfrom teg.domain.errors import Refused"),
    (
        "gateway.py",
        "import teg.settings\nfrom tasks.queue import huey\nfrom teg.adapters import tls\nimport producers.feed",
    ),
    ("tests/unit/test_x.py", "import gateway, huey, teg.simulator, redis"),
    ("bench/drain.py", "import gateway, teg.simulator"),
]


@pytest.mark.parametrize(("file", "text"), INNOCENT)
def test_what_is_allowed_is_not_reported(tmp_path: Path, file: str, text: str) -> None:
    assert architecture.import_faults(plant(tmp_path, file, text)) == []


@pytest.mark.parametrize(
    "back",
    [
        "from tasks import a",
        "import tasks.a",
        "def late():\n    from tasks.a import x",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from tasks.a import x",
        "from . import a",
        "from .a import x",
    ],
)
def test_a_planted_circle_is_caught(tmp_path: Path, back: str) -> None:
    plant(tmp_path, "tasks/__init__.py", "")
    plant(tmp_path, "tasks/a.py", "import tasks.b\nx = 1")
    plant(tmp_path, "tasks/b.py", "import tasks.c")
    plant(tmp_path, "tasks/c.py", "import logging")
    assert architecture.circle_faults(tmp_path) == []
    plant(tmp_path, "tasks/c.py", back)
    assert architecture.circle_faults(tmp_path) == ["import one another: tasks.a, tasks.b, tasks.c"]


@pytest.mark.parametrize(
    ("file", "text", "fault"),
    [
        ("teg/domain/server/wire.py", "from teg.domain.ota import Job", "server may not import teg.domain.ota"),
        ("teg/domain/ota/job.py", "from teg.domain.server.wire import X", "past the face of server"),
        ("teg/domain/ports.py", "from teg.domain.server import X", "what all subjects share imports"),
    ],
)
def test_a_planted_way_around_a_subject_is_caught(tmp_path: Path, file: str, text: str, fault: str) -> None:
    for module in ("server/__init__", "server/wire", "ota/__init__", "ota/job", "ports"):
        plant(tmp_path, f"teg/domain/{module}.py", "")
    plant(tmp_path, "teg/domain/ota/job.py", "from teg.domain.server import X\nfrom teg.domain.ports import Y")
    assert architecture.subject_faults(tmp_path) == []
    plant(tmp_path, file, text)
    [found] = architecture.subject_faults(tmp_path)
    assert fault in found


@pytest.mark.parametrize("text", ["import os\nos.environ['A']", "import os\nos.getenv('A')", "from os import environ"])
def test_a_planted_look_at_the_environment_is_caught(tmp_path: Path, text: str) -> None:
    plant(tmp_path, "teg/adapters/host.py", text)
    plant(tmp_path, "teg/settings.py", "import os\nos.environ['A']")
    assert architecture.environment_faults(tmp_path, Exceptions()) == ["teg/adapters/host.py reads the environment"]
    assert architecture.environment_faults(tmp_path, Exceptions(environment={"teg/adapters/host.py": "why"})) == []


def test_an_exception_that_is_not_needed_any_more_is_caught(tmp_path: Path) -> None:
    plant(tmp_path, "teg/adapters/host.py", "import os")
    old = Exceptions(environment={"teg/adapters/host.py": "why"}, broad={"teg/adapters/host.py:run": "why"})
    assert architecture.environment_faults(tmp_path, old) == ["teg/adapters/host.py needs its exception no more"]
    assert architecture.broad_except_faults(tmp_path, old) == ["teg/adapters/host.py:run needs its exception no more"]


@pytest.mark.parametrize(
    "kind", ["except:", "except Exception:", "except (OSError, Exception):", "except BaseException:"]
)
def test_a_planted_broad_except_is_caught(tmp_path: Path, kind: str) -> None:
    plant(tmp_path, "teg/domain/rpc/calls.py", f"def run():\n    try:\n        pass\n    {kind}\n        pass\n")
    assert architecture.broad_except_faults(tmp_path, Exceptions()) == [
        "teg/domain/rpc/calls.py:run (line 4) catches everything"
    ]
    assert architecture.broad_except_faults(tmp_path, Exceptions(broad={"teg/domain/rpc/calls.py:run": "why"})) == []


def test_a_broad_except_belongs_to_the_innermost_function(tmp_path: Path) -> None:
    inner = "    def inner():\n        try:\n            pass\n        except Exception:\n            pass\n"
    plant(tmp_path, "teg/domain/rpc/calls.py", f"def outer():\n{inner}")
    assert list(architecture.broad_excepts(tmp_path)) == ["teg/domain/rpc/calls.py:inner"]


def test_catching_everything_to_raise_it_again_is_no_fault(tmp_path: Path) -> None:
    plant(
        tmp_path,
        "teg/domain/rpc/calls.py",
        "def run():\n    try:\n        pass\n    except BaseException:\n        raise\n",
    )
    plant(
        tmp_path,
        "teg/domain/files.py",
        "def run():\n    try:\n        pass\n    except ValueError:\n        pass\n",
    )
    assert architecture.broad_except_faults(tmp_path, Exceptions()) == []


def function(name: str, lines: int) -> str:
    return f"def {name}():\n" + "    pass\n" * (lines - 1)


def test_a_long_module_is_caught(tmp_path: Path) -> None:
    plant(tmp_path, "teg/domain/rpc/calls.py", "x = 1\n" * 400)
    assert architecture.length_faults(tmp_path) == []
    plant(tmp_path, "teg/domain/rpc/calls.py", "x = 1\n" * 401)
    assert architecture.length_faults(tmp_path) == ["teg/domain/rpc/calls.py has 401 lines"]


def test_a_long_test_is_caught_too(tmp_path: Path) -> None:
    plant(tmp_path, "tests/unit/test_rpc.py", "x = 1\n" * 401)
    assert architecture.length_faults(tmp_path) == ["tests/unit/test_rpc.py has 401 lines"]


def test_long_functions_are_caught(tmp_path: Path) -> None:
    short = "".join(function(f"f{number}", 9) for number in range(10))
    assert architecture.length_faults(plant(tmp_path, "teg/domain/rpc/calls.py", short)) == []
    plant(tmp_path, "teg/domain/files.py", function("g", 31) + function("h", 31))
    assert architecture.length_faults(tmp_path) == ["a tenth of the functions has more than 31 lines"]
    plant(tmp_path, "teg/domain/files.py", "".join(function(f"g{number}", 10) for number in range(11)))
    assert architecture.length_faults(tmp_path) == ["the median function has 10 lines"]


def test_protocol_stubs_are_not_counted(tmp_path: Path) -> None:
    plant(tmp_path, "teg/domain/ports.py", 'def promise():\n    """What it promises."""\n    ...\n')
    assert architecture.function_lengths(tmp_path) == []
