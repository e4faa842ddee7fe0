"""In which order the tests run, and which stay together: the long ones first, so that no worker is left with one.

pytest-xdist hands out groups in the order of the collection. A group is a file; where the tests of a file are long each
is a group of its own. Tests that need the Docker Engine share one: two of these groups run beside each other, each with
one engine. Marker `slow` says what is long.
"""

from pathlib import PurePath

import pytest

#: One engine each. The first is the longest chain of a whole run, so it begins first.
ENGINES = {
    "tests/system/docker/test_ota_gateway.py": "engine 1",
    "tests/system/docker/": "engine 2",
    "tests/unit/adapters/test_controller_runtime_contract.py": "engine 2",
}
#: Where each test is long enough to be handed out alone, unless its file has something that is made once for all in it.
ALONE = ("tests/system/", "tests/faults/", "tests/conformance/")
TOGETHER = ("test_crashes.py", "test_files_crashes.py", "test_service.py", "test_status_page.py", "test_wheel.py")


def group_of(nodeid: str) -> str:
    """What runs in one process, one after the other, with the test `nodeid`."""
    file = nodeid.partition("::")[0]
    engine = next((group for path, group in ENGINES.items() if file.startswith(path)), None)
    if engine is not None:
        return engine
    alone = file.startswith(ALONE) and PurePath(file).name not in TOGETHER
    return nodeid if alone else file


def sort(items: list[pytest.Item]) -> None:
    """Engines, slow ones (whole files before single tests), what has processes, the rest; each as it was collected."""
    slow = {group_of(item.nodeid) for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: _rank(group_of(item.nodeid), slow))


def _rank(group: str, slow: set[str]) -> tuple[bool, bool, bool, bool]:
    return (
        group not in ENGINES.values(),
        group not in slow,
        group in slow and "::" in group,
        not group.startswith(ALONE),
    )


def shares_an_engine(nodeid: str) -> bool:
    """False for a test that would start an engine of its own beside the two."""
    return group_of(nodeid) in ENGINES.values()
