"""Attribute tasks: pushes are hints, connects re-read everything, and each part is tried again on its own."""

from collections.abc import Iterator
from typing import Any

import pytest

from tasks.attributes import handle_attribute_push, publish_attributes, read_limits, read_software, synchronise
from tasks.huey_app import GatewayHuey
from teg.domain.errors import NotConnected, Refused, Unavailable
from teg.domain.server.attributes import SOFTWARE_KEYS
from tests.support.tasks import FakeServices, serving


@pytest.fixture
def services() -> Any:
    return FakeServices()


@pytest.fixture
def queue(services: Any) -> Iterator[GatewayHuey]:
    with serving(services) as queue:
        yield queue


def waiting(queue: GatewayHuey) -> list[str]:
    return sorted(task.name for task in queue.scheduled())


@pytest.mark.parametrize("key", SOFTWARE_KEYS)
def test_a_software_push_asks_for_the_software(services: Any, queue: GatewayHuey, key: str) -> None:
    handle_attribute_push([key], [])
    assert services.done == ["ota.pushed", "synchroniser.read_software"]


@pytest.mark.parametrize("key", ["FILES", "FILE_CONTENT_config.json"])
def test_a_file_push_asks_for_the_files(services: Any, queue: GatewayHuey, key: str) -> None:
    handle_attribute_push([key], [])
    assert services.done == ["files.reconcile"]


def test_a_deletion_is_a_hint_like_any_other(services: Any, queue: GatewayHuey) -> None:
    handle_attribute_push([], ["sw_version", "FILES"])
    assert services.done == ["ota.pushed", "synchroniser.read_software", "files.reconcile"]


@pytest.mark.parametrize("keys", [[], ["interval_s"], ["sw"], ["FILE_READ_x"], ["files"], ["SW_VERSION"]])
def test_the_controllers_own_attributes_are_not_ours(services: Any, queue: GatewayHuey, keys: list[str]) -> None:
    handle_attribute_push(keys, [])
    assert services.done == []


def test_many_keys_of_a_subject_ask_once(services: Any, queue: GatewayHuey) -> None:
    handle_attribute_push(["sw_title", "sw_version", "sw_url", "FILES", "FILE_CONTENT_a"], ["FILE_CONTENT_b"])
    assert services.done.count("synchroniser.read_software") == 1
    assert services.done.count("files.reconcile") == 1


def test_a_connect_reads_and_tells_everything_limits_first(services: Any, queue: GatewayHuey) -> None:
    synchronise()
    assert services.done[0] == "synchroniser.read_limits"
    assert set(services.done) == {
        "synchroniser.read_limits",
        "reporter.publish_attributes",
        "reporter.tell_what_differs",
        "synchroniser.read_software",
        "files.reconcile",
        "synchroniser.tell_system",
    }


def test_one_part_that_fails_does_not_keep_back_the_others(services: Any, queue: GatewayHuey) -> None:
    for part in ("synchroniser.read_limits", "reporter.publish_attributes", "synchroniser.read_software"):
        services.fail[part] = NotConnected("the connection ended")
    services.fail["files.reconcile"] = Unavailable("no answer")
    synchronise()
    assert "synchroniser.tell_system" in services.done
    assert waiting(queue) == ["publish_attributes", "read_software", "reconcile_files"]


def test_a_retry_does_what_failed_before(services: Any, queue: GatewayHuey) -> None:
    services.fail["synchroniser.read_software"] = Unavailable("no answer")
    read_software()
    del services.fail["synchroniser.read_software"]
    [later] = queue.scheduled()
    queue.execute(later, later.eta)
    assert services.done == ["synchroniser.read_software"] * 2


def test_a_server_without_limits_is_not_asked_for_ever(services: Any, queue: GatewayHuey) -> None:
    services.fail["synchroniser.read_limits"] = Unavailable("no answer")
    read_limits()
    assert waiting(queue) == []


def test_an_attribute_that_can_never_be_sent_is_not_tried_for_ever(services: Any, queue: GatewayHuey) -> None:
    services.fail["reporter.publish_attributes"] = Refused("too large")
    publish_attributes()
    assert waiting(queue) == []


def test_any_number_of_connects_leaves_one_retry_of_each(services: Any, queue: GatewayHuey) -> None:
    """A link that flaps all night."""
    services.fail["synchroniser.read_software"] = services.fail["files.reconcile"] = NotConnected("gone")
    for _ in range(200):
        synchronise()
    assert waiting(queue) == ["read_software", "reconcile_files"]
