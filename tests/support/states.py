"""`ports.State` in memory; it keeps the contract of the real one (tests/unit/adapters/test_state_contract.py)."""

from typing import Any

import orjson


class MemoryState:
    """Through JSON, like the real one: it accepts what JSON can carry, and gives back what JSON makes of it."""

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}
        self.writes: list[str] = []

    def get(self, key: str) -> Any:
        return orjson.loads(self.stored[key]) if key in self.stored else None

    def put(self, key: str, value: Any) -> None:
        self.stored[key] = orjson.dumps(value)
        self.writes.append(key)

    def delete(self, key: str) -> None:
        self.stored.pop(key, None)

    def keys(self, prefix: str) -> list[str]:
        return sorted(key for key in self.stored if key.startswith(prefix))
