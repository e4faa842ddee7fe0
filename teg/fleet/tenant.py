"""The fleet's devices on the server, over its REST API: created, counted out, deleted."""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from teg.adapters.thingsboard_rest import ThingsBoardRest

#: More rows than any member records.
_ALL = 1_000_000


class Tenant:
    def __init__(self, rest: ThingsBoardRest, prefix: str = "teg-fleet") -> None:
        self._rest = rest
        self._prefix = f"{prefix}-{secrets.token_hex(3)}"
        self._ids: dict[str, str] = {}

    @contextmanager
    def devices(self, count: int) -> Iterator[tuple[str, ...]]:
        """Their access tokens; the devices are deleted at the end, whatever happens."""
        try:
            yield tuple(self._create(number) for number in range(1, count + 1))
        finally:
            for identity in self._ids.values():
                self._rest.delete(f"/api/device/{identity}")

    def _create(self, number: int) -> str:
        token = f"{self._prefix}-{number:05}"
        made = self._rest.post("/api/device", {"name": token, "type": "default"}, accessToken=token)
        self._ids[token] = made["id"]["id"]
        return token

    def missing(self, tokens: Sequence[str], recorded: Sequence[int]) -> int:
        """How many of the records 1 … `recorded` of each device the server does not have in its database."""
        return sum(map(self._missing, tokens, recorded))

    def _missing(self, token: str, recorded: int) -> int:
        path = f"/api/plugins/telemetry/DEVICE/{self._ids[token]}/values/timeseries"
        found = self._rest.get(path, keys="n", startTs=0, endTs=1 << 52, limit=_ALL, useStrictDataTypes="true")
        return len(set(range(1, recorded + 1)) - {int(point["value"]) for point in found.get("n", ())})
