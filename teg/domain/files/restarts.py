"""Restarts of the controller that file changes ask for: durable before the change, collected, done once for several."""

from teg.domain.ports import State

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
