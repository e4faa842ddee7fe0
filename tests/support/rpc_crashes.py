"""A call, and crashes at the steps of its way."""

from typing import Any

import pytest

from tests.support.rpc import Rig

LS = {"command": ["ls"]}


def states(rig: Rig) -> list[str]:
    return [entry.state for entry in rig.rpc_journal.recent(100)]


class Killed(BaseException):
    """Stands for the end of the process at this point: nothing of ours runs after it."""


def crash(rig: Rig, request_id: int, method: str, params: Any) -> Rig:
    with pytest.raises(Killed):
        rig.take(request_id, method, params)
    return rig.again()


def killed() -> None:
    raise Killed
