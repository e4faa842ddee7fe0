"""Which image is which version: the engine's id, recorded when the image was obtained and verified."""

from collections.abc import Collection

from teg.domain.ports import State

IDS_KEY = "controller.images"
_REMEMBERED = 50


class ImageIds:
    """`take_over` holds the versions that may once be known by their name: those of a gateway that kept no ids."""

    def __init__(self, state: State, take_over: Collection[str] = ()) -> None:
        self._state = state
        self._take_over = frozenset(take_over if state.get(IDS_KEY) is None else ())

    def get(self, version: str) -> str | None:
        found = (self._state.get(IDS_KEY) or {}).get(version)
        return found if isinstance(found, str) else None

    def put(self, version: str, image_id: str) -> None:
        """Durable when it returns. The oldest records go; their versions would be obtained again."""
        known = {name: its for name, its in (self._state.get(IDS_KEY) or {}).items() if name != version}
        self._state.put(IDS_KEY, dict([*known.items(), (version, image_id)][-_REMEMBERED:]))

    def may_take_over(self, version: str) -> bool:
        return version in self._take_over
