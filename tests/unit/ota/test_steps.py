"""What `teg why VERSION` tells is noted as it happens: each step once, the last hundred of them."""

from typing import Any

from teg.domain.ota.assignment import SwState
from teg.domain.ota.store import STEPS_KEY, UpdateStore
from teg.domain.supervision import Observation


class Memory(dict[str, Any]):
    """`ports.State`."""

    def put(self, key: str, value: Any) -> None:
        self[key] = value

    def delete(self, key: str) -> None:
        self.pop(key, None)


class Nothing:
    """Report, runtime and controller at once: a controller of version v1 runs."""

    def telemetry(self, _: object) -> None: ...

    def version(self) -> str:
        return "v1"

    def observe(self) -> Observation:
        return Observation(exists=True, running=True, version="v1")


def store(state: Memory, now_ms: int = 5) -> UpdateStore:
    nothing: Any = Nothing()
    memory: Any = state
    return UpdateStore(memory, nothing, nothing, nothing, lambda: now_ms)


def test_each_step_is_noted_once_whatever_restarts() -> None:
    state = Memory()
    state["ota.wanted"] = {"serial": 1, "attributes": {"sw_version": "v2"}, "changed_ms": 1}
    store(state).tell(1, SwState.DOWNLOADING)
    store(state, 6).tell(1, SwState.DOWNLOADING)  # another life of the gateway
    store(state, 7).tell(1, SwState.FAILED, "no network")
    assert state[STEPS_KEY] == [[5, "v2", "v1", "DOWNLOADING", ""], [7, "v2", "v1", "FAILED", "no network"]]


def test_the_memory_is_bounded() -> None:
    state = Memory()
    for number in range(500):
        store(state).tell(number, SwState.FAILED, f"error {number}")
    assert len(state[STEPS_KEY]) == 100
    assert state[STEPS_KEY][-1][-1] == "error 499"
