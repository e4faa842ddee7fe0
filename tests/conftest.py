"""What all tests share: their order, examples that may take their time, reports that travel between processes."""

from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from tests.support import queue_libraries, schedule
from tests.support.engine import clean_engine, engine, engine_to_stop

__all__ = ["clean_engine", "engine", "engine_to_stop"]  # fixtures: imported elsewhere each would be one more engine

queue_libraries.add()  # before anybody imports Huey, which looks for them once

# A busy machine is no defect of the example that met it. In CI hypothesis by itself takes the same examples each time.
settings.register_profile("unhurried", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    schedule.sort(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    if config.getvalue("dist") != "loadscope":
        return None
    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = schedule.group_of
    return scheduler


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, dict[str, Any] | None, dict[str, Any] | None]:
    """pytest-xdist sends reports as UTF-8, which the captured output of tests with lone surrogates is not."""
    data = yield
    return None if data is None else _encodable(data)


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(item) for item in value]
    return value
