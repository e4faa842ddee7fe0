"""What a test can make go wrong, while the server runs and for a bounded number of times.

Every fault that strikes single messages is a `Trigger`:

    server.faults.drop_puback = every(3)
    server.faults.close_before_puback = next_n(2)
    server.faults.poison = when(lambda publish: b"bad" in publish.payload)
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

from teg.simulator.thingsboard.server_queue import PackOrder


class Message(Protocol):
    """What a trigger may look at: a publish of the client or a downlink of the server."""

    @property
    def topic(self) -> str: ...
    @property
    def payload(self) -> bytes: ...


class Trigger:
    """Decides for each message whether the fault strikes, and counts how often it did."""

    def __init__(self, strikes: Callable[[Any, int], bool], times: int | None = None) -> None:
        self._strikes = strikes
        self._left = times
        self.seen = 0
        self.struck = 0

    def fires(self, message: Message | None = None) -> bool:
        self.seen += 1
        if self._left == 0 or not self._strikes(message, self.seen):
            return False
        self.struck += 1
        if self._left is not None:
            self._left -= 1
        return True


def never() -> Trigger:
    return Trigger(lambda _message, _seen: False)


def always() -> Trigger:
    return Trigger(lambda _message, _seen: True)


def next_n(times: int) -> Trigger:
    """The next `times` messages."""
    return Trigger(lambda _message, _seen: True, times)


def every(nth: int, times: int | None = None) -> Trigger:
    """Each `nth` message from now on."""
    return Trigger(lambda _message, seen: seen % nth == 0, times)


def when(predicate: Callable[[Any], bool], times: int | None = None) -> Trigger:
    """Messages for which `predicate(message)` holds; it runs on the server's loop and must not block."""
    return Trigger(lambda message, _seen: predicate(message), times)


@dataclass
class Faults:
    """All faults off. Assign to an attribute at any time; `clear()` turns everything off again."""

    # --- connecting
    #: Answers to the next CONNECTs, first to last, in MQTT 3.1.1 codes.
    connack_codes: list[int] = field(default_factory=list)
    connack_delay_s: float = 0.0
    #: Whatever the login, it is a device's; nobody sees what such a device sends.
    admit_strangers: bool = False
    #: Session present is told as it is: never.
    tell_no_session_present: bool = False
    #: Accept the TCP connection and close it at once (a blocked IP address).
    close_on_accept: Trigger = field(default_factory=never)
    # --- the whole connection
    #: Half-open: whatever arrives is dropped unread, nothing is sent, not even PINGRESP or CONNACK.
    freeze: bool = False
    #: The kernel's buffers fill up, so that the client's writes block.
    stop_reading: bool = False
    drop_pingresp: bool = False
    #: What ought to end a connection does not: nothing is closed from the server's side.
    never_close: bool = False
    #: MQTT 5 is told nothing: PUBACK 0 for what was refused, and closes without a DISCONNECT.
    hide_reasons: bool = False
    #: TCP reset on arrival of the publish; it is not stored.
    reset: Trigger = field(default_factory=never)
    # --- publishes of the client
    #: Closed without PUBACK and not stored, like a payload that the server cannot take.
    poison: Trigger = field(default_factory=never)
    #: Stored, then closed without PUBACK: the client has to send it again.
    close_before_puback: Trigger = field(default_factory=never)
    #: Stored, but the PUBACK is lost.
    drop_puback: Trigger = field(default_factory=never)
    puback_delay_s: float = 0.0
    #: Token buckets are never empty.
    ignore_rate_limits: bool = False
    #: A claim is acknowledged and forgotten.
    forget_claims: bool = False
    #: Whoever asks for a device gets it.
    grant_claims: bool = False
    #: PUBACKs are collected up to this number and sent in reverse order.
    puback_out_of_order: int = 0
    #: Collected messages (PUBACKs, swapped downlinks) leave after this time, complete or not.
    collect_s: float = 0.2
    # --- storing
    #: How long the server takes for one pack of queued messages; 0 = stored before the PUBACK.
    store_delay_s: float = 0.0
    pack_order: PackOrder = "any"
    #: Stored instead of what was published, of telemetry and client attributes.
    alter_payload: Callable[[bytes], bytes] | None = None
    #: Client attributes do not wait in the queue: reading one back proves nothing.
    attributes_overtake: bool = False
    #: No alarm rule is run.
    skip_alarm_rules: bool = False
    #: The server does not note when a device was heard and whether it is connected.
    forget_activity: bool = False
    #: A rule chain that does not store client attributes: acknowledged, and never to be read back.
    drop_client_attributes: bool = False
    # --- subscriptions
    #: SUBACK 0x80 for a filter (the message's topic) that is right.
    refuse_subscription: Trigger = field(default_factory=never)
    #: SUBACK grants, but nothing is registered (a rate limit hit on SUBSCRIBE).
    lose_subscription: Trigger = field(default_factory=never)
    suback_delay_s: float = 0.0
    #: A dashboard is kept without what it shows, whatever its version; a profile without its alarms.
    forget_contents: bool = False
    #: A package with a URL fails inside, as 4.2.1 does it with some.
    fail_url_packages: bool = False
    # --- downlinks
    #: Never sent: pushes, calls and answers alike.
    drop_downlinks: Trigger = field(default_factory=never)
    #: The downlink waits for the next one and leaves after it.
    reorder_downlinks: Trigger = field(default_factory=never)
    #: The RPC request is sent twice in a row, with the same id.
    duplicate_rpc: Trigger = field(default_factory=never)
    #: Pending calls leave before the SUBACK of the subscription.
    rpc_before_suback: bool = False
    #: The attribute request is never answered.
    swallow_attribute_responses: Trigger = field(default_factory=never)
    #: The answer is read now and sent after the next push, or by `device.release_attribute_responses()`,
    #: in a later session too.
    stale_attribute_response: Trigger = field(default_factory=never)
    #: REST callers are told that all is well at once, and every persistent call is SUCCESSFUL.
    calls_succeed: bool = False
    #: (chunk number, bytes) -> bytes to send instead, or None for no answer.
    ota_chunk: Callable[[int, bytes], bytes | None] | None = None

    def clear(self) -> None:
        fresh = Faults()
        for item in fields(self):
            setattr(self, item.name, getattr(fresh, item.name))
