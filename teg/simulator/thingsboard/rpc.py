"""Calls from the server to one device: numbering, delivery, re-delivery, timeouts, persistent states.

Source: ThingsBoard's DeviceActorMessageProcessor with the default submit strategy BURST. Everything runs
on the server's loop, except `RpcHandle`, which a test holds in its own thread.
"""

import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

FINAL_STATES = frozenset({"SUCCESSFUL", "EXPIRED", "FAILED", "DELETED"})


class Timer(Protocol):
    def cancel(self) -> None: ...


#: Runs a function after some seconds, on the loop.
Schedule = Callable[[float, Callable[[], None]], Timer]


@dataclass(frozen=True, slots=True)
class RpcOutcome:
    """What the REST caller gets: 200, 504 (or 408, 409 of the old API), 406 for an answer that is no JSON.

    An empty answer is 200 with an empty body.

    Status 0: the server went away while the caller waited.
    """

    status: int
    response: Any = None


@dataclass(eq=False)
class RpcCall:
    """`id` is the number on the wire, unique only among the calls that are pending at the same time."""

    method: str
    params: Any
    timeout_s: float
    one_way: bool = False
    persistent: bool = False
    old_api: bool = False
    max_retries: int = 5
    rpc_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    id: int = -1
    sent: bool = False
    deliveries: int = 0
    acknowledged: bool = False
    retries: int = 0
    states: list[str] = field(default_factory=list)
    response: Any = None
    outcome: RpcOutcome | None = None
    #: The device's response as it came.
    answer: bytes = b""
    #: Called on the loop with the outcome of the REST call.
    answered: Callable[[RpcOutcome], None] | None = None
    created_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    finished: threading.Event = field(default_factory=threading.Event)
    expiry: Timer | None = None

    @property
    def state(self) -> str:
        return self.states[-1] if self.states else ""

    @property
    def request(self) -> bytes:
        return orjson.dumps({"method": self.method, "params": self.params})

    def enter(self, state: str) -> None:
        if self.persistent and state != self.state:
            self.states.append(state)
        if state in FINAL_STATES or (state == "DELIVERED" and self.one_way):
            self.finished.set()

    def finish(self, outcome: RpcOutcome) -> None:
        """Answer the REST caller; later outcomes are ignored. A persistent call ends by its state."""
        if self.outcome is None:
            self.outcome = outcome
            if self.answered is not None:
                self.answered(outcome)
        if not self.persistent:
            self.finished.set()


class SubscribedSession(Protocol):
    """The subscribed session, as far as calls need it."""

    def send_rpc(self, call: RpcCall) -> None: ...


class PendingCalls:
    """The pending calls of one device."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._pending: dict[int, RpcCall] = {}
        self._session: SubscribedSession | None = None
        self._next_id = 0
        #: Id -> persistent call, also those that have ended.
        self.persistent: dict[str, RpcCall] = {}
        self.stale_responses: list[tuple[int, bytes]] = []

    @property
    def pending(self) -> list[RpcCall]:
        return list(self._pending.values())

    def submit(self, call: RpcCall) -> None:
        """A call whose subscribed session exists leaves at once, even if its socket is already dead."""
        call.enter("QUEUED")
        self._number(call)
        call.expiry = self._schedule(call.timeout_s, lambda: self._expire(call))
        if call.persistent:
            self.persistent[call.rpc_id] = call
            call.finish(RpcOutcome(200, {"rpcId": call.rpc_id}))
        self._pending[call.id] = call
        if self._session is not None:
            self._send(call, self._session)

    def subscribed(self, session: SubscribedSession) -> None:
        """Every SUBSCRIBE sends all pending calls again, those under execution included."""
        self._session = session
        for call in self.pending:
            self._send(call, session)

    def unsubscribed(self, session: SubscribedSession) -> None:
        if self._session is session:
            self._session = None

    def delivered(self, call_id: int) -> None:
        """PUBACK for the request (or written, with QoS 0)."""
        call = self._pending.get(call_id)
        if call is None:
            return
        call.acknowledged = True
        call.enter("DELIVERED")
        if call.persistent and call.one_way:
            self._drop(call)

    def not_delivered(self, call_id: int) -> None:
        """No PUBACK within the delivery timeout: persistent calls count it and give up at last."""
        call = self._pending.get(call_id)
        if call is None or call.acknowledged or not call.persistent:
            return
        call.enter("TIMEOUT")
        if call.retries >= call.max_retries:
            self._drop(call)
            call.enter("FAILED")
        call.retries += 1

    def responded(self, call_id: int, payload: bytes) -> None:
        """A response nobody waits for is dropped silently."""
        call = self._pending.get(call_id)
        if call is None or call.one_way:
            self.stale_responses.append((call_id, payload))
            return
        self._drop(call)
        call.answer = payload
        if not payload and not call.persistent:
            call.finish(RpcOutcome(200))
            return
        try:
            call.response = orjson.loads(payload)
            call.finish(RpcOutcome(200, call.response))
        except orjson.JSONDecodeError:
            call.response = {"error": payload.decode("utf-8", "replace")}
            call.finish(RpcOutcome(406))
        call.enter("SUCCESSFUL")

    def delete(self, call: RpcCall) -> None:
        """The operator deletes a persistent call."""
        self._drop(call)
        call.enter("DELETED")

    def restart(self) -> None:
        """The server restarts: numbers begin at 0 again, only calls still QUEUED come back."""
        calls, self._pending, self._session, self._next_id = self.pending, {}, None, 0
        for call in calls:
            if call.persistent and call.state == "QUEUED":
                self._number(call)
                self._pending[call.id] = call
            else:
                _cancel(call)
                call.finish(RpcOutcome(0))

    def _number(self, call: RpcCall) -> None:
        call.id = self._next_id
        self._next_id += 1

    def _send(self, call: RpcCall, session: SubscribedSession) -> None:
        call.sent = True
        call.deliveries += 1
        call.enter("SENT")
        session.send_rpc(call)
        if call.one_way and not call.persistent:
            self._drop(call)
            call.finish(RpcOutcome(200))

    def _expire(self, call: RpcCall) -> None:
        self._drop(call)
        status = (408 if call.sent else 409) if call.old_api else 504
        call.finish(RpcOutcome(status))
        call.enter("EXPIRED")

    def _drop(self, call: RpcCall) -> None:
        if self._pending.get(call.id) is call:
            del self._pending[call.id]
        _cancel(call)


def _cancel(call: RpcCall) -> None:
    if call.expiry is not None:
        call.expiry.cancel()


class RpcHandle:
    """A call in progress, for the thread that made it."""

    def __init__(self, call: RpcCall) -> None:
        self.call = call

    @property
    def id(self) -> int:
        """The number on the wire; persistent calls get a new one when the server restarts."""
        return self.call.id

    @property
    def rpc_id(self) -> str:
        return self.call.rpc_id

    @property
    def state(self) -> str:
        """Of a persistent call: QUEUED, SENT, DELIVERED, SUCCESSFUL, TIMEOUT, EXPIRED, FAILED, DELETED."""
        return self.call.state

    @property
    def states(self) -> list[str]:
        return list(self.call.states)

    @property
    def deliveries(self) -> int:
        """How often the request was sent to the device."""
        return self.call.deliveries

    @property
    def done(self) -> bool:
        return self.call.finished.is_set()

    def wait(self, timeout_s: float | None = None) -> RpcOutcome:
        """Wait for the outcome, of a persistent call for its final state and the device's answer.

        Without `timeout_s`, wait for the call's own timeout plus a margin.

        Raises:
            AssertionError: still pending.
        """
        patience_s = self.call.timeout_s + 5 if timeout_s is None else timeout_s
        if not self.call.finished.wait(patience_s):
            raise AssertionError(f"RPC {self.call.method!r} (id {self.id}) still pending after {patience_s} s")
        if self.call.persistent:
            return RpcOutcome(200, self.call.response)
        return self.call.outcome or RpcOutcome(0)
