"""When the service manager hears that we are alive: while any lane of the queue turns."""

import time
from typing import Any

import pytest

from tasks.consumer import STUCK_S, GatewayConsumer
from tasks.lanes import Lane
from tasks.queue import huey


@pytest.fixture
def consumer() -> GatewayConsumer:
    found: Any = huey.create_consumer()
    assert isinstance(found, GatewayConsumer)
    return found


def test_before_the_first_turn_it_gets_on(consumer: GatewayConsumer) -> None:
    assert consumer.gets_on(1000.0)


def test_one_lane_that_turns_is_enough(consumer: GatewayConsumer) -> None:
    """An image build holds its lane for twenty minutes, and that is no reason to start anew."""
    consumer.turns |= {Lane.OTA: 0.0, Lane.RPC: 1000.0}
    assert consumer.gets_on(1000.0 + STUCK_S - 1)


def test_none_that_turns_is_a_dead_lock(consumer: GatewayConsumer) -> None:
    consumer.turns |= dict.fromkeys(Lane, 1000.0)
    assert not consumer.gets_on(1000.0 + STUCK_S)


def test_nobody_is_told_while_nothing_turns(consumer: GatewayConsumer, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[bool] = []
    monkeypatch.setattr(huey, "alive", lambda: told.append(True))
    monkeypatch.setattr("huey.consumer.Consumer.check_worker_health", lambda _: True)
    consumer.turns |= dict.fromkeys(Lane, time.monotonic() - STUCK_S)
    consumer.check_worker_health()
    assert told == []
    consumer.turns[Lane.WORK] = time.monotonic()
    consumer.check_worker_health()
    assert told == [True]


def test_a_worker_that_has_looked_in_vain_has_turned(consumer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.huey_app.IDLE_WAIT_S", 0.0)
    worker: Any = consumer._create_worker()
    worker.initialize()
    consumer.turns.clear()
    worker.loop()
    assert set(consumer.turns) == {worker.seat}
