"""What is remembered per file over restarts, and how long a failed write waits for its next try."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from teg.domain.backoff import Backoff
from teg.domain.ports import State

#: Writes that failed: a full card must not be worn out by trying every 30 s.
FAILED_WRITES = Backoff(first_s=5, cap_s=600)
MAX_REMEMBERED = 1000


class Remembered:
    """A small JSON object in `State`, written only when it changed; the oldest entries go when it grows too large."""

    def __init__(self, state: State, name: str) -> None:
        self._state = state
        self._name = name
        self._values: dict[str, Any] = {}

    def load(self) -> None:
        kept = self._state.get(self._name)
        self._values = dict(kept) if isinstance(kept, dict) else {}

    def get(self, key: str) -> Any:
        return self._values.get(key)

    def put(self, key: str, value: Any) -> None:
        if self._values.get(key) != value:
            self._values.pop(key, None)
            kept = list(self._values.items())[1 - MAX_REMEMBERED :]
            self._values = dict(kept) | {key: value}
            self._state.put(self._name, self._values)

    def keep_only(self, keys: Collection[str]) -> None:
        if surplus := self._values.keys() - set(keys):
            self._values = {key: value for key, value in self._values.items() if key not in surplus}
            self._state.put(self._name, self._values)


@dataclass(frozen=True, slots=True)
class Failure:
    """A write that did not work: for which content, why, and when to try again."""

    digest: str
    reason: str
    attempts: int
    not_before_s: float


class Failures:
    """Failed writes by key, in memory: after a restart everything is tried at once."""

    def __init__(self) -> None:
        self._failed: dict[str, Failure] = {}

    def add(self, key: str, digest: str, reason: str, now_s: float) -> None:
        before = self._failed.get(key)
        attempts = before.attempts + 1 if before and before.digest == digest else 0
        self._failed[key] = Failure(digest, reason, attempts, now_s + FAILED_WRITES.wait_s(attempts))

    def waiting(self, key: str, digest: str, now_s: float) -> str | None:
        """The reason of the last try while the next one is not due; another content is due at once."""
        failure = self._failed.get(key)
        if failure is None or failure.digest != digest or now_s >= failure.not_before_s:
            return None
        return failure.reason

    def clear(self, key: str) -> None:
        self._failed.pop(key, None)

    def keep_only(self, keys: Collection[str]) -> None:
        self._failed = {key: failure for key, failure in self._failed.items() if key in keys}

    def next_s(self) -> float:
        return min((failure.not_before_s for failure in self._failed.values()), default=float("inf"))


_KEY = "files/restart"
#: A controller that rewrites its own file would otherwise be restarted every 30 s, for ever.
DRIFT_RESTART_INTERVAL_S = 3600.0


class Restarts:
    """Keys of changed files whose controller restart is still to come.

    `arm` comes before the write (a crash in between costs a needless restart, not a missed one), `due` after it.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._armed: set[str] = set()
        self._due: dict[str, int] = {}
        self._changes = 0
        self._drift_s: dict[str, float] = {}

    def load(self) -> None:
        """After a start everything that was armed is due: the write may have happened."""
        self._armed = set(self._state.get(_KEY) or ())
        for key in self._armed:
            self.now_due(key)

    def arm(self, key: str) -> None:
        if key not in self._armed:
            self._armed.add(key)
            self._save()

    def disarm(self, key: str) -> None:
        """The write failed; a restart that an earlier change asked for stays."""
        if key in self._armed and key not in self._due:
            self._armed.discard(key)
            self._save()

    def now_due(self, key: str) -> None:
        self._changes += 1
        self._due[key] = self._changes

    def due(self) -> dict[str, int]:
        """Keys that wait for a restart, each with the change it stands for."""
        return dict(self._due)

    def done(self, due: dict[str, int]) -> None:
        """Forget what this restart covered; a file that changed again meanwhile stays."""
        for key, change in due.items():
            if self._due.get(key) == change:
                del self._due[key]
                self._armed.discard(key)
        self._save()

    def allowed_for_drift(self, key: str, now_s: float) -> bool:
        last_s = self._drift_s.get(key)
        if last_s is not None and now_s < last_s + DRIFT_RESTART_INTERVAL_S:
            return False
        self._drift_s[key] = now_s
        return True

    def _save(self) -> None:
        self._state.put(_KEY, sorted(self._armed))
