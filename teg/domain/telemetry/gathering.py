"""Records that wait for others to share a message, where each message costs: on links that count bytes."""

from collections.abc import Callable


class Gathering:
    """After everything was sent nothing more goes for `window_s()`; then everything that came meanwhile does.

    Used by one thread at a time; `due` and `postponed` from any.
    """

    def __init__(self, window_s: Callable[[], float] = lambda: 0.0) -> None:
        self._window_s = window_s
        self._closed_s = float("-inf")  #: when everything was sent
        self._sending = False
        self._waited_for = False

    def open(self, now_s: float) -> bool:
        """May telemetry go now?"""
        is_open = now_s >= self._closed_s + self._window_s()
        self._waited_for = not is_open
        return is_open

    def postponed(self, now_s: float) -> bool:
        """Something came: is it too early to send it? Then `due` says when it is time."""
        return not self.open(now_s)

    def due(self, now_s: float) -> bool:
        """True when something came too early, and now it is time."""
        return self._waited_for and now_s >= self._closed_s + self._window_s()

    def gave(self, anything: bool, now_s: float) -> None:
        """There was a message to send, or no more."""
        if self._sending and not anything:
            self._closed_s = now_s
        self._sending = anything
