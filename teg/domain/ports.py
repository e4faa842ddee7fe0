"""What the rules need from the outside, as Protocols; `adapters/` keeps each promise with one concrete thing.

A port raises only `Unavailable` (try later) or `Refused` (never retry); a library's exception never crosses it.
Ports that only one subject needs live in that subject (`telemetry/ports.py`, `files/ports.py`, …).
"""

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class Clock(Protocol):
    """Time as an argument: rules ask this, never the `time` module."""

    def now_ms(self) -> int:
        """Wall clock in Unix milliseconds; may jump in both directions (no RTC)."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that only grow while this boot lasts; meaningless across boots."""
        ...

    def boot_id(self) -> str:
        """Changes with every boot of the host; tells whether two monotonic readings may be compared."""
        ...


class Session(Protocol):
    """The live MQTT connection to the server."""

    @property
    def connected(self) -> bool:
        """True from the SUBACK of our subscriptions until the connection ends."""
        ...

    @property
    def epoch(self) -> int:
        """Number of sessions established so far: differs between two sends if the link broke in between."""
        ...

    def publish(self, topic: str, payload: bytes, on_done: Callable[[bool], None]) -> None:
        """Send at QoS 1 and return at once; waits only while the window of unacknowledged publishes is full.

        `on_done(True)` is called on PUBACK, `on_done(False)` if the connection ends first: exactly one of
        the two, on the network thread, so it must not block.

        Raises:
            NotConnected: nothing was sent and `on_done` will not be called.
        """
        ...

    def deliver(self, topic: str, payload: bytes, timeout_s: float = 30.0) -> None:
        """Send at QoS 1 and wait for the PUBACK; raises Unavailable when it does not come.

        `timeout_s` counts from the moment at which the message has left this machine, and while it has not, from the
        last byte that did: a slow link is no reason to give up.
        """
        ...

    def request(self, topic: str, payload: bytes, answer_topic: str, timeout_s: float = 10.0) -> bytes:
        """Publish and wait for the one message on `answer_topic`; raises Unavailable when none comes.

        Never call it from the network thread. Answers to an earlier connection's request are dropped.
        """
        ...

    def subscribe(self, topic_filter: str) -> None:
        """Add a filter beyond the three standing ones (OTA chunks), for this connection only; checks the SUBACK."""
        ...


class State(Protocol):
    """Small persisted facts, one JSON value a key; durable (fsync) when `put` returns."""

    def get(self, key: str) -> Any:
        """The stored value, or None."""
        ...

    def put(self, key: str, value: Any) -> None: ...

    def delete(self, key: str) -> None: ...

    def keys(self, prefix: str) -> list[str]: ...


class Report(Protocol):
    """Tells the server about our own state; every call is durable and sent when there is a session again."""

    def telemetry(self, values: Mapping[str, Any], ts_ms: int | None = None) -> None:
        """Store a telemetry record of the gateway's own; delivered at least once, ahead of the controller's backlog."""
        ...

    def attributes(self, values: Mapping[str, Any]) -> None:
        """Set client attributes; the last value of a key wins and is delivered at least once."""
        ...


class AttributeSource(Protocol):
    """Asks the server for attributes: the answer is the truth, pushes are hints."""

    def request_attributes(
        self, client_keys: Sequence[str] = (), shared_keys: Sequence[str] = ()
    ) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Return (client, shared) as the server has them now; raises Unavailable when no answer comes."""
        ...


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a finished command left behind; `output` is stdout and stderr together, cut to its cap."""

    exit_code: int | None
    output: str
    timed_out: bool
    truncated: bool


#: What `exit_gateway` sends to its own process, and the status the process then ends with, as the reference did:
#: a service manager that restarts on failure only starts it again.
EXIT_SIGNAL = signal.SIGUSR1
EXIT_STATUS = 15
#: What a process sends to itself when one of its threads does not get on (`liveness`), and its status then.
STUCK_SIGNAL = signal.SIGUSR2
STUCK_STATUS = 70
EXIT_STATUSES: Mapping[int, int] = {EXIT_SIGNAL: EXIT_STATUS, STUCK_SIGNAL: STUCK_STATUS}


class Host(Protocol):
    """The machine we run on."""

    def reboot(self) -> None: ...

    def shutdown(self) -> None: ...

    def exit_gateway(self) -> None:
        """Ask this process to stop gracefully with `EXIT_STATUS`; its supervisor starts it again."""
        ...

    def run(self, argv: Sequence[str], timeout_s: float, output_cap_bytes: int = 65_536) -> CommandResult:
        """Run without a shell in its own process group; the whole group is killed at the time-out."""
        ...

    def disk(self) -> tuple[int, int]:
        """(total, free) bytes of the partition that holds our data."""
        ...

    def sys_info(self) -> Mapping[str, Any]:
        """`/proc/stat` as the reference publishes it: first word of a line → list of the other words."""
        ...


class Controller(Protocol):
    """The supervised controller as others see it; `teg/domain/supervision/policy.py` keeps this promise."""

    def restart(self, reason: str) -> None:
        """Stop and start at once (asked for by RPC, a file change or OTA); raises Unavailable / Refused."""
        ...

    def running_since_ms(self) -> int | None:
        """Wall-clock start of the running controller, None while it does not run (from memory, never blocks)."""
        ...

    def summary(self) -> Mapping[str, Any]:
        """What is known of it for `status`: version, state, restarts, last exit; from memory, never blocks."""
        ...

    def logs(self, lines: int) -> list[str]:
        """The last lines of its output; raises Unavailable."""
        ...


class Heartbeat(Protocol):
    """The controller's sign of life in its `health_check` table."""

    def last_heartbeat_ms(self) -> int | None:
        """Unix ms of the newest heartbeat, None before the first; raises Unavailable while the inbox is locked."""
        ...
