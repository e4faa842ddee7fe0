"""The gateway with every worker but the RPC lane's stuck: `huey_consumer tests.support.blocked_gateway.huey`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from huey.api import TaskWrapper

from gateway import huey as huey
from gateway import lifespan
from tasks.lanes import WORKERS, Lane
from tasks.queue import task
from tasks.services import Services
from teg.settings import Settings

logger = logging.getLogger("gateway.blocked")
STUCK_LANES = [lane for lane in Lane if lane is not Lane.RPC]


def _stuck(lane: Lane) -> TaskWrapper[[int], None]:
    @task(name=f"stuck_{lane}", lane=lane, priority=1_000)
    def block(number: int) -> None:
        logger.info("stuck: %s %d", lane, number)
        huey.services.stopping.wait()

    return block


BLOCKS: dict[Lane, Callable[[int], object]] = {lane: _stuck(lane) for lane in STUCK_LANES}


@contextmanager
def _blocked(settings: Settings) -> Iterator[Services]:
    with lifespan(settings) as services:
        for lane, block in BLOCKS.items():
            for number in range(WORKERS[lane]):
                block(number)
        yield services


huey.lifespan = _blocked
