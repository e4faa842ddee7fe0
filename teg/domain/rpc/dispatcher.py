"""A call from the server, from its arrival to its one answer: quick ones at once, the rest at most once.

Decision 0020. The order is everything: intent noted (durable) → effect → outcome noted → answer; where the effect ends
the gateway or the controller, answer acknowledged → effect noted → effect.
"""

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from teg.domain.errors import Refused, Unavailable
from teg.domain.ports import Clock, Session
from teg.domain.redaction import redacted_text
from teg.domain.rpc.journal import CallJournal, CallKey, Entry, State, interrupted
from teg.domain.rpc.methods import CallPlan, Group, Method, Progress
from teg.domain.server import RPC_RESPONSE, RpcRequest, TokenBucket, encode_rpc_response, fitted

logger = logging.getLogger("gateway.rpc")

CALLS_PER_S = 5.0
CALL_BURST = 20
#: A call that waited longer for its lane is answered, not done: its caller has given up.
LATEST_START_MS = 10_000
ACKNOWLEDGEMENT_S = 10.0
#: So long an announcement is repeated while the connection comes and goes.
ANNOUNCE_S = 30.0
#: An operator who has the answer may ask again while its PUBACK is still being noted: that is not "busy".
LAST_LINES_S = 0.5
SHOWN_NAME = 100


class UnknownMethod(Refused):
    """There is no such method; the message is the whole answer."""


class RpcDispatcher:
    """Takes calls and answers each delivered one exactly once, if there is a session to answer on."""

    def __init__(
        self,
        *,
        methods: Mapping[str, Method],
        disabled: frozenset[str],
        session: Session,
        journal: CallJournal,
        clock: Clock,
        stopping: threading.Event,
    ) -> None:
        self._methods = methods
        self._disabled = disabled
        self._session = session
        self._journal = journal
        self._clock = clock
        self._stopping = stopping
        self._bucket = TokenBucket(clock, CALLS_PER_S, CALL_BURST)
        self._groups = Groups()
        self._numbering = threading.Lock()
        self._number_here = 0

    def take(self, request: RpcRequest) -> int | None:
        """Answer what is quick; for the rest return until when (Unix ms) `run` may begin it."""
        started_s = self._clock.monotonic_s()
        try:
            job = self._planned(request)
            if job.group is not None:
                return self._clock.now_ms() + LATEST_START_MS
            self._admit()
        except (Refused, Unavailable) as reason:
            self._answer(request, _error(reason), started_s)
        else:
            self._answer(request, self._outcome(request, job), started_s)
        return None

    def run(self, request: RpcRequest, deadline_ms: int) -> None:
        """Do a call that takes time; one of a group at a time, a second one is told so."""
        started_s = self._clock.monotonic_s()
        try:
            job, key = self._planned(request), CallKey.of(request)
            with self._groups.entered(job.group or Group.COMMAND, key) as holder:
                if holder is None:
                    self._run_alone(request, key, job, deadline_ms)
                elif holder != key and not self._answered_again(request, key, job):
                    raise Unavailable(f"busy: {job.group} is going on ('{holder.method}'), try again later")
        except (Refused, Unavailable) as reason:
            self._answer(request, _error(reason), started_s)

    def call_here(self, method: str, params: Any, progress: Progress | None = None) -> Any:
        """A call made on this device: the same checks, groups and journal, and the answer is returned, not sent.

        Its number is negative: the server's are not. What is announced to a server (a restart that takes longer than
        its patience) is waited for here, and work in slices tells its `progress`.
        """
        request, started_s = RpcRequest(self._next_number_here(), method, params), self._clock.monotonic_s()
        try:
            job, key = _telling(self._planned(request), progress), CallKey.of(request)
            if job.group is None:
                self._admit()
                return self._noted(request, self._outcome(request, job), started_s)
            with self._groups.entered(job.group, key) as holder:
                if holder is not None:
                    raise Unavailable(f"busy: {job.group} is going on ('{holder.method}'), try again later")
                self._check_start(request, job, self._clock.now_ms() + LATEST_START_MS)
                return self._do_here(request, key, job)
        except (Refused, Unavailable) as reason:
            return self._noted(request, _error(reason), started_s)

    def refuse(self, request_id: int, reason: str) -> None:
        """Answer a request that could not be read."""
        self._answer(RpcRequest(request_id, "", None), f"Error - {reason}", self._clock.monotonic_s())

    def recover(self) -> None:
        """Call once, before the first task: what the last process left unfinished is never done again."""
        if count := self._journal.recover():
            logger.warning("%d calls were interrupted by the end of the last process; they are not done again", count)

    def tend(self) -> None:
        """Write the lines of quick calls that wait in memory, and forget what is old."""
        self._journal.flush()

    # --- before ---------------------------------------------------------------------------------------------

    def _planned(self, request: RpcRequest) -> CallPlan:
        name = request.method[:SHOWN_NAME]
        method = self._methods.get(request.method)
        if method is None:
            raise UnknownMethod(f"Unknown RPC method: '{name}' - use command 'list' to get a list of available methods")
        if name in self._disabled:
            raise Refused(f"RPC method '{name}' is disabled on this gateway (TEG_RPC_DISABLED)")
        return method.plan(request.params)

    def _admit(self) -> None:
        if not self._bucket.take():
            raise Unavailable("too many calls: more than 5 a second, try again later")

    def _check_start(self, request: RpcRequest, job: CallPlan, deadline_ms: int) -> None:
        """A deadline out of reach in either direction means that the clock was set: rather not than twice."""
        if not deadline_ms - LATEST_START_MS <= self._clock.now_ms() <= deadline_ms:
            raise Unavailable(f"expired: '{request.method}' could not be begun within 10 s, it is not done")
        self._admit()
        if job.spacing_s:
            self._check_spacing(request.method, job.spacing_s)

    def _check_spacing(self, method: str, spacing_s: int) -> None:
        since_s = self._journal.seconds_since_acted(method)
        if since_s is not None and since_s < spacing_s:
            raise Unavailable(
                f"{method} is done at most once in {spacing_s} s, try again in {int(spacing_s - since_s) + 1} s"
            )

    # --- doing ----------------------------------------------------------------------------------------------

    def _run_alone(self, request: RpcRequest, key: CallKey, job: CallPlan, deadline_ms: int) -> None:
        if self._answered_again(request, key, job):
            return
        self._check_start(request, job, deadline_ms)
        if job.announce is not None:
            self._announce_and_act(request, key, job)
        elif job.once:
            self._do_once(request, key, job)
        else:
            started_s = self._clock.monotonic_s()
            self._answer(request, self._outcome(request, job), started_s)

    def _do_once(self, request: RpcRequest, key: CallKey, job: CallPlan) -> None:
        started_s = self._clock.monotonic_s()
        entry_id = self._begin(request, key)
        message = self._outcome(request, job)
        try:
            self._journal.answered(entry_id, message, started_s)
        except Unavailable as reason:
            logger.error("RPC %s: the outcome could not be noted: %s", request.method, reason)
        self._log(request, message)
        self._deliver(request, entry_id, message)

    def _announce_and_act(self, request: RpcRequest, key: CallKey, job: CallPlan) -> None:
        entry_id = self._begin(request, key)
        if not self._announced(request, job.announce):
            logger.error("RPC %s is not done: the server did not acknowledge its answer", request.method)
            with suppress(Unavailable):
                self._journal.undelivered(entry_id)
            return
        try:
            self._journal.acting(entry_id, job.announce)
        except Unavailable as reason:
            logger.error("RPC %s is not done after its answer: it could not be noted (%s)", request.method, reason)
            return
        self._log(request, job.announce)
        message = self._outcome(request, job)
        if message is not None:
            logger.error("RPC %s failed after its answer: %s", request.method, message)
            with suppress(Unavailable):
                self._journal.acting(entry_id, f"{job.announce}, then: {message}")

    def _do_here(self, request: RpcRequest, key: CallKey, job: CallPlan) -> Any:
        """As `_do_once` and `_announce_and_act`: the intent is durable before the effect, which is never repeated."""
        started_s = self._clock.monotonic_s()
        if not job.once:
            return self._noted(request, self._outcome(request, job), started_s)
        entry_id = self._begin(request, key)
        if job.announce is not None:
            self._journal.acting(entry_id, job.announce)
        message = self._outcome(request, job)
        try:
            if job.announce is None:
                self._journal.answered(entry_id, message, started_s)
                self._journal.acknowledged(entry_id)
            elif message is not None:
                self._journal.acting(entry_id, f"{job.announce}, then: {message}")
        except Unavailable as reason:
            logger.error("RPC %s: the outcome could not be noted: %s", request.method, reason)
        message = job.announce if message is None else message
        self._log(request, message)
        return message

    def _noted(self, request: RpcRequest, message: Any, started_s: float) -> Any:
        message = fitted(message)
        self._journal.note(request, message, started_s)
        self._log(request, message, logging.DEBUG)
        return message

    def _next_number_here(self) -> int:
        """Unix milliseconds, negative, no two alike."""
        with self._numbering:
            self._number_here = min(self._number_here - 1, -self._clock.now_ms())
            return self._number_here

    def _begin(self, request: RpcRequest, key: CallKey) -> int:
        try:
            return self._journal.begin(key, request)
        except Unavailable as reason:
            raise Unavailable(f"'{request.method}' is not done: it cannot be noted now ({reason})") from reason

    def _outcome(self, request: RpcRequest, job: CallPlan) -> Any:
        try:
            return job.run() if job.announce is not None else fitted(job.run())
        except (Refused, Unavailable) as reason:
            return fitted(_error(reason))
        except Exception as error:
            logger.error("RPC %s raised %s", request.method, type(error).__name__, exc_info=error)
            return fitted(f"Error executing RPC method '{request.method}': {error}")

    # --- answering ------------------------------------------------------------------------------------------

    def _answered_again(self, request: RpcRequest, key: CallKey, job: CallPlan) -> bool:
        """The same answer to a re-delivered call; False when this is a new call."""
        entry = self._journal.standing(key) if job.once else None
        if entry is None:
            return False
        logger.info("RPC %s (id %d) was delivered again: answered again, not done again", request.method, request.id)
        self._repeat(request, entry)
        return True

    def _repeat(self, request: RpcRequest, entry: Entry) -> None:
        message = interrupted(request.method) if entry.answer is None else entry.message
        if entry.state in (State.ACKNOWLEDGED, State.ACTED):
            self._send(request, message)
        else:
            self._deliver(request, entry.id, message)

    def _answer(self, request: RpcRequest, message: Any, started_s: float) -> None:
        message = fitted(message)
        self._send(request, message)
        self._journal.note(request, message, started_s)
        self._log(request, message, logging.DEBUG)  # every INFO line is stored and sent: not one for every ping

    def _send(self, request: RpcRequest, message: Any) -> None:
        """Without a session there is nothing to do: the server asks again at the next SUBSCRIBE."""
        try:
            self._session.publish(_topic(request), encode_rpc_response(message), lambda acknowledged: None)
        except Unavailable as reason:
            logger.debug("RPC %s (id %d) is not answered now: %s", request.method, request.id, reason)

    def _deliver(self, request: RpcRequest, entry_id: int, message: Any) -> None:
        try:
            self._session.deliver(_topic(request), encode_rpc_response(message), ACKNOWLEDGEMENT_S)
            self._journal.acknowledged(entry_id)
        except Unavailable as reason:
            logger.warning("the answer to RPC %s (id %d) may be lost: %s", request.method, request.id, reason)

    def _announced(self, request: RpcRequest, message: Any) -> bool:
        """True once the server has acknowledged the answer; tries again while the connection comes and goes."""
        give_up_s = self._clock.monotonic_s() + ANNOUNCE_S
        while not self._stopping.is_set():
            try:
                self._session.deliver(_topic(request), encode_rpc_response(message), ACKNOWLEDGEMENT_S)
            except Unavailable as reason:
                logger.debug("RPC %s: %s", request.method, reason)
            else:
                return True
            if self._clock.monotonic_s() >= give_up_s or self._stopping.wait(0.5):
                break
        return False

    def _log(self, request: RpcRequest, message: Any, level: int = logging.INFO) -> None:
        """Errors with their reason (they reach the server as telemetry), the rest in one short line.

        Never as an error of ours: whoever may call could fill the log with them.
        """
        if isinstance(message, str) and message.startswith("Error"):
            logger.warning("RPC %s (id %d): %s", request.method[:SHOWN_NAME], request.id, redacted_text(message)[:500])
        else:
            logger.log(level, "RPC %s (id %d) answered", request.method[:SHOWN_NAME], request.id)


class Groups:
    """Who is in which group now; nobody waits for work to be done, only for its last lines in the journal."""

    def __init__(self) -> None:
        self._inside: dict[Group, CallKey] = {}
        self._left = threading.Condition()

    @contextmanager
    def entered(self, group: Group, key: CallKey) -> Iterator[CallKey | None]:
        """Yields None when the group was free and is now taken for the block, else who is inside."""
        with self._left:
            if self._inside.get(group) != key:
                self._left.wait_for(lambda: group not in self._inside, LAST_LINES_S)
            holder = self._inside.get(group)
            if holder is None:
                self._inside[group] = key
        try:
            yield holder
        finally:
            if holder is None:
                with self._left:
                    del self._inside[group]
                    self._left.notify_all()


def _telling(job: CallPlan, progress: Progress | None) -> CallPlan:
    run = job.run_telling
    return job if run is None or progress is None else replace(job, run=partial(run, progress))


def _topic(request: RpcRequest) -> str:
    return RPC_RESPONSE.format(id=request.id)


def _error(reason: Refused | Unavailable) -> str:
    return str(reason) if isinstance(reason, UnknownMethod) else f"Error - {reason}"
