"""The order of the tests: what is long begins first, and what needs an engine shares one of two."""

from types import SimpleNamespace
from typing import Any

from tests.support import schedule

OTA = "tests/system/docker/test_ota_gateway.py::test_killed_in_a_good_update[replacing]"
IMAGES = "tests/system/docker/test_docker_images.py::test_images"


def item(nodeid: str, slow: bool = False) -> Any:
    return SimpleNamespace(nodeid=nodeid, get_closest_marker=lambda name: slow or None)


def test_engines_then_long_ones_then_real_processes_then_the_rest() -> None:
    unit, quick = item("tests/unit/test_a.py::test"), item("tests/system/test_quick.py::test")
    file = item("tests/system/test_wheel.py::test", slow=True)
    long, engine = item("tests/faults/test_long.py::test", slow=True), item(OTA)
    found = [unit, quick, long, file, engine]
    schedule.sort(found)
    assert found == [engine, file, long, quick, unit]


def test_a_file_stays_together_with_its_longest_test() -> None:
    """One that is made once for a whole file would be made again by the process that got the rest."""
    file = "tests/system/test_wheel.py"
    first, second, other = item(f"{file}::a"), item(f"{file}::b", slow=True), item("tests/system/test_x.py::c")
    found = [other, first, second]
    schedule.sort(found)
    assert found == [first, second, other]
    assert schedule.group_of(first.nodeid) == schedule.group_of(second.nodeid) == file


def test_there_are_two_engines_and_whoever_needs_another_one_is_told() -> None:
    assert {schedule.group_of(OTA), schedule.group_of(IMAGES)} == {"engine 1", "engine 2"}
    assert schedule.shares_an_engine(OTA) and schedule.shares_an_engine(IMAGES)
    assert not schedule.shares_an_engine("tests/unit/test_a.py::test")
