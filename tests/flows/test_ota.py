"""From a push or an answer of the server to the update, through the queue in immediate mode."""

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tasks.attributes import handle_attribute_push, read_software
from tasks.in_memory import Triggers
from tasks.lanes import Lane
from tasks.ota import advance_update
from tasks.periodic import TIMETABLE
from tasks.queue import huey
from teg.domain.errors import Unavailable
from teg.domain.ota.updater import NoUpdates
from teg.domain.server.attributes import SOFTWARE_KEYS, Synchroniser
from tests.support.ota_world import World
from tests.support.remote_files import services_with


class Server:
    """Answers attribute requests with what is assigned; `silent` answers are missing."""

    def __init__(self) -> None:
        self.shared: dict[str, Any] = {}
        self.asked: list[tuple[str, ...]] = []

    def request_attributes(
        self, client_keys: Any = (), shared_keys: Any = ()
    ) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        self.asked.append(tuple(shared_keys))
        return {}, {key: value for key, value in self.shared.items() if key in shared_keys}


class Flow:
    """A device in memory behind the real tasks."""

    def __init__(self, tmp_path: Path) -> None:
        self.world, self.server = World(tmp_path), Server()
        self.world.wake = advance_update
        nothing: Any = None
        self.synchroniser = Synchroniser(
            self.server,  # type: ignore[arg-type]
            nothing,
            nothing,
            nothing,
            nothing,
            nothing,
            self.world.update,
        )

    def assign(self, version: str | None) -> None:
        """What ThingsBoard does: set or delete the attributes, and push what changed."""
        if version is None:
            deleted = [key for key in self.server.shared if key in SOFTWARE_KEYS]
            self.server.shared.clear()
            handle_attribute_push([], deleted)
        else:
            self.server.shared = {"sw_version": version, "sw_title": "ctl", "sw_url": "-"}
            handle_attribute_push(sorted(self.server.shared), [])


@pytest.fixture
def flow(tmp_path: Path) -> Iterator[Flow]:
    flow = Flow(tmp_path)
    huey.immediate = True
    with huey.serving(services_with(ota=flow.world.update, synchroniser=flow.synchroniser)):
        yield flow
    huey.close()
    huey.triggers = Triggers()
    huey.immediate = False


def test_a_push_leads_to_the_question_and_the_answer_to_the_update(flow: Flow) -> None:
    flow.assign("v2")
    assert flow.server.asked == [SOFTWARE_KEYS]
    assert flow.world.runs == "v2"
    assert flow.world.report.states()[-1] == "UPDATED"


def test_every_connect_asks_and_nothing_happens_twice(flow: Flow) -> None:
    flow.assign("v2")
    told = len(flow.world.report.updates())
    for _ in range(3):
        read_software()
    assert len(flow.server.asked) == 4
    assert flow.world.engine.starts == ["v1", "v2"]
    assert len(flow.world.report.updates()) == told


def test_a_stale_push_is_only_a_hint(flow: Flow) -> None:
    flow.server.shared = {"sw_version": "v3", "sw_url": "-"}
    handle_attribute_push(["sw_version"], [])  # it was about v2, the answer says v3
    assert flow.world.engine.starts == ["v1", "v3"]


def test_a_version_that_failed_is_tried_again_after_a_push_of_it(flow: Flow) -> None:
    flow.world.engine.crashing.add("v2")
    flow.assign("v2")
    read_software()
    assert flow.world.engine.starts == ["v1", "v2", "v1"]
    flow.world.engine.crashing.clear()
    flow.assign("v2")
    assert flow.world.runs == "v2"


def test_a_push_that_cannot_be_noted_leads_to_the_question_nevertheless(
    flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(keys: Any) -> None:
        raise Unavailable("the database is locked")

    monkeypatch.setattr(flow.world.update, "pushed", locked)
    flow.assign("v2")
    assert flow.world.runs == "v2"


def test_deleted_attributes_are_an_unassignment(flow: Flow) -> None:
    flow.assign("v2")
    flow.assign(None)
    assert flow.world.records.wanted().attributes is None
    assert flow.world.runs == "v2"


def test_pushes_about_other_keys_ask_nothing(flow: Flow) -> None:
    handle_attribute_push(["limit"], ["other"])
    assert flow.server.asked == []


def test_what_can_only_be_done_later_stays_queued(flow: Flow) -> None:
    flow.world.source.failures = [Unavailable("no network")]
    flow.assign("v2")
    assert flow.world.runs == "v1"
    assert [task.name for task in huey.scheduled()] == ["advance_update"]
    flow.world.clock.pass_s(60)
    for task in huey.scheduled():
        huey.execute(task, timestamp=task.eta)
    assert flow.world.runs == "v2"


def test_an_answer_that_never_comes_is_asked_for_again(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(**_: Any) -> Any:
        raise Unavailable("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(flow.server, "request_attributes", silent)
        flow.assign("v2")
    assert flow.world.runs == "v1"
    assert [task.name for task in huey.scheduled()] == ["read_software"]
    for task in huey.scheduled():
        huey.execute(task, timestamp=task.eta)
    assert flow.world.runs == "v2"


def test_an_update_has_a_lane_of_its_own_and_is_found_again_every_minute() -> None:
    assert advance_update.task_class.lane is Lane.OTA
    assert [line.interval_s for line in TIMETABLE if line.task is advance_update] == [60]


def test_without_a_controller_to_supervise_nothing_is_done() -> None:
    with huey.serving(services_with(ota=NoUpdates())):
        huey.services.ota.wanted({"sw_version": "v2"})
        huey.services.ota.pushed(["sw_version"])
        huey.services.ota.advance()


def test_answers_are_handed_on_in_the_order_of_the_questions(flow: Flow) -> None:
    """Two workers at once: the second asks only when the first has handed on what it got."""
    first_asked, may_answer = threading.Event(), threading.Event()
    order: list[str] = []
    answer = flow.server.request_attributes

    def request_attributes(client_keys: Any = (), shared_keys: Any = ()) -> Any:
        order.append("asked")
        first_asked.set()
        assert may_answer.wait(10)
        return answer(client_keys, shared_keys)

    flow.server.request_attributes = request_attributes  # type: ignore[method-assign]
    flow.world.wake = lambda: order.append("handed on")
    workers = [threading.Thread(target=flow.synchroniser.read_software) for _ in range(2)]
    for worker in workers:
        worker.start()
    assert first_asked.wait(10)
    may_answer.set()
    for worker in workers:
        worker.join(10)
    assert order == ["asked", "handed on"] * 2
