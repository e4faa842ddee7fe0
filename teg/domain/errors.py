"""The two kinds of failure every caller has to tell apart: try later, or never again.

Exception
├── Unavailable      the outside is not ready (network, Docker, lock, disk): try the same thing later
│   └── NotConnected     there is no MQTT session at this moment
└── Refused          the request itself is wrong: trying again cannot help
"""


class Unavailable(Exception):  # noqa: N818 - the name says what holds, not that it is an error
    """Something outside cannot serve us now; the same call may succeed later."""


class NotConnected(Unavailable):
    """There is no live session with the server."""


class Refused(Exception):  # noqa: N818
    """The input can never be accepted; the message says what was wrong with it."""
