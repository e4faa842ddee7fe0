"""`State` in memory, for tests that ask what is remembered and not how."""

from typing import Any

import orjson


class MemoryState:
    """Accepts only what JSON can carry."""

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}

    def get(self, key: str) -> Any:
        return orjson.loads(self.stored[key]) if key in self.stored else None

    def put(self, key: str, value: Any) -> None:
        self.stored[key] = orjson.dumps(value)

    def delete(self, key: str) -> None:
        self.stored.pop(key, None)

    def keys(self, prefix: str) -> list[str]:
        return [key for key in self.stored if key.startswith(prefix)]
