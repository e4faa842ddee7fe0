"""What the tasks are tested with has the services of the gateway, with their methods and no others."""

from dataclasses import fields
from typing import Any

import pytest

from tasks.services import Services
from tests.support.tasks import FakeServices, Recording, service_types

NAMES = [field.name for field in fields(Services) if field.name != "stopping"]


@pytest.mark.parametrize("name", NAMES)
def test_each_service_is_there_with_the_methods_of_the_real_one(name: str) -> None:
    services: Any = FakeServices()
    service = getattr(services, name)
    assert isinstance(service, Recording)
    with pytest.raises(AttributeError, match=f"no service '{name}' has 'do_it'"):
        service.do_it()
    assert all(isinstance(kind, type) for kind in service_types()[name])


def test_a_call_is_noted_and_takes_what_the_real_one_takes() -> None:
    services: Any = FakeServices()
    services.files.reconcile()
    services.supervisor.restart("asked for by a test")
    assert services.done == ["files.reconcile", "supervisor.restart"]
    with pytest.raises(TypeError):
        services.supervisor.restart()
    with pytest.raises(TypeError):
        services.files.reconcile("now")
    assert services.done == ["files.reconcile", "supervisor.restart"]


def test_there_is_no_service_but_those() -> None:
    services: Any = FakeServices()
    with pytest.raises(AttributeError):
        _ = services.archive
