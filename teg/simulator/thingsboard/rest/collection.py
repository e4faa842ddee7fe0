"""Entities that the server keeps as they were sent: each with an id and a unique name."""

import time
import uuid
from typing import Any

from teg.simulator.thingsboard.rest.bodies import TENANT_ID, entity, id_in
from teg.simulator.thingsboard.rest.errors import BAD_REQUEST, NOT_FOUND, VERSION_CONFLICT, ApiError, checked_id

Entity = dict[str, Any]


class Collection:
    """`kind` is ThingsBoard's entity type, `word` what its messages call one, `name_field` where the name stands."""

    def __init__(self, kind: str, word: str, name_field: str) -> None:
        self._kind = kind
        self._word = word
        self._name_field = name_field
        self._entities: dict[str, Entity] = {}

    def save(self, body: Entity) -> Entity:
        """Create, or change the one whose id the body has.

        Raise `ApiError` for a name that is missing or taken, and for a `version` that is not the current one any more.
        """
        name, identity = body.get(self._name_field), id_in(body, "id")
        if not isinstance(name, str) or not name.strip():
            raise ApiError(400, f"{self._word} {self._name_field} should be specified!", BAD_REQUEST)
        known = {} if identity is None else self.find(identity)
        if any(other is not known and other[self._name_field] == name for other in self._entities.values()):
            raise ApiError(400, f"{self._word} with such {self._name_field} already exists!", BAD_REQUEST)
        if body.get("version") not in (None, known.get("version")):
            raise ApiError(409, f"{self._word} was already changed by someone else", VERSION_CONFLICT)
        return self.keep({**body, "version": known.get("version", 0) + 1}, identity or str(uuid.uuid1()))

    def keep(self, body: Entity, identity: str) -> Entity:
        created = {"createdTime": time.time_ns() // 1_000_000, **self._entities.get(identity, {})}
        fixed = {"id": entity(self._kind, identity), "tenantId": entity("TENANT", TENANT_ID)}
        self._entities[identity] = {**body, **fixed, "createdTime": created["createdTime"]}
        return self._entities[identity]

    def find(self, identity: str) -> Entity:
        wanted = checked_id(identity)
        if wanted not in self._entities:
            raise ApiError(404, f"{self._word} with id [{wanted}] is not found", NOT_FOUND)
        return self._entities[wanted]

    def delete(self, identity: str) -> None:
        del self._entities[self.find(identity)["id"]["id"]]

    def search(self, text: str) -> list[Entity]:
        """All whose names contain the text, whatever its case."""
        wanted = text.casefold()
        return [known for known in self._entities.values() if wanted in known[self._name_field].casefold()]
