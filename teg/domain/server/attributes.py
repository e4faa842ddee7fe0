"""The server's attributes: asked for by request id, because pushes can be lost, swapped or stale.

A push only says that something about a subject changed; what holds is the answer to the request that follows.
"""

import itertools
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol

import orjson

from teg.domain.errors import NotConnected, Unavailable
from teg.domain.ports import Clock, Host, Report, Session, State
from teg.domain.server.rate_limits import Limits, Pacer, parse_limits
from teg.domain.server.wire import (
    ATTRIBUTE_REQUEST,
    ATTRIBUTE_RESPONSE,
    RPC_REQUEST,
    RPC_RESPONSE,
    encode_attribute_request,
    encode_client_rpc,
    parse_attributes,
)

logger = logging.getLogger("gateway.attributes")

#: All shared attributes that say which software should run; `sf_*` is the reference's older spelling.
SOFTWARE_KEYS = tuple(
    f"{prefix}_{name}"
    for prefix in ("sw", "sf")
    for name in ("title", "version", "tag", "url", "size", "checksum", "checksum_algorithm", "signature", "ts")
)
#: The client RPC that ThingsBoard answers by itself, without a rule chain.
LIMITS_QUESTION = "getSessionLimits"
#: ThingsBoard answers at once; a server that does not know the question should not hold the backlog up for long.
LIMITS_TIMEOUT_S = 4.0
#: State: the last answer, kept from the first packet of the next life on.
LIMITS_KEY = "server.limits"
FILES_KEY = "FILES"
FILE_CONTENT_PREFIX = "FILE_CONTENT_"


def remembered_limits(state: State) -> Limits | None:
    """What the server allowed when it was last asked; None before the first time."""
    try:
        answer = state.get(LIMITS_KEY)
    except Unavailable:  # a start does not wait for its storage; the server is asked again in any case
        return None
    return parse_limits(answer) if isinstance(answer, dict) else None


class Subject(StrEnum):
    """What a shared attribute is about."""

    SOFTWARE = "software"
    FILES = "files"


def subjects_of(keys: Iterable[str]) -> set[Subject]:
    """The subjects that have to be read again after a push of `keys`; keys of the controller's own are none."""
    found: set[Subject] = set()
    for key in keys:
        if key in SOFTWARE_KEYS:
            found.add(Subject.SOFTWARE)
        if key == FILES_KEY or key.startswith(FILE_CONTENT_PREFIX):
            found.add(Subject.FILES)
    return found


class ServerAttributes:
    """`ports.AttributeSource`, and the one other question we ask: the session's limits."""

    def __init__(self, session: Session, is_thingsboard: Callable[[int], None] = lambda _: None) -> None:
        """`is_thingsboard` is called with the epoch of a connection whose server has told its limits."""
        self._is_thingsboard = is_thingsboard
        self._session = session
        self._ids = itertools.count(1)

    def request_attributes(
        self, client_keys: Sequence[str] = (), shared_keys: Sequence[str] = ()
    ) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        request_id = next(self._ids)
        payload = self._session.request(
            ATTRIBUTE_REQUEST.format(id=request_id),
            encode_attribute_request(client_keys, shared_keys),
            ATTRIBUTE_RESPONSE.format(id=request_id),
        )
        answer = parse_attributes(payload)
        return answer.client, answer.shared

    def request_limits(self) -> Mapping[str, Any]:
        """What the server allows this device; a server that does not know the question does not answer it.

        Raises:
            Unavailable: no answer, or our own question came back: a plain broker.
        """
        request_id, epoch = next(self._ids), self._session.epoch
        payload = self._session.request(
            RPC_REQUEST.format(id=request_id),
            encode_client_rpc(LIMITS_QUESTION, {}),
            RPC_RESPONSE.format(id=request_id),
            LIMITS_TIMEOUT_S,
        )
        try:
            answer = orjson.loads(payload)
        except orjson.JSONDecodeError as error:
            raise Unavailable(f"the answer to getSessionLimits is not JSON: {error}") from error
        if not isinstance(answer, dict):
            return {}
        if "maxPayloadSize" in answer or "rateLimits" in answer:
            self._is_thingsboard(epoch)
        return answer


class Software(Protocol):
    """Who is told which software the server wants (`teg/domain/ota/assignment.py`)."""

    def wanted(self, shared: Mapping[str, Any]) -> None:
        """`shared` holds the sw_*/sf_* attributes as the server has them now; none of them: un-assigned."""
        ...


class Synchroniser:
    """What is read and told after every connect, and after a push."""

    def __init__(
        self,
        attributes: ServerAttributes,
        pacer: Pacer,
        state: State,
        report: Report,
        host: Host,
        clock: Clock,
        software: Software,
    ) -> None:
        self._attributes = attributes
        self._pacer = pacer
        self._state = state
        self._report = report
        self._host = host
        self._clock = clock
        self._software = software
        self._reading_software = threading.Lock()

    def read_software(self) -> None:
        """One at a time: two workers could hand on their answers in the wrong order, and the older one would hold.

        Raises:
            Unavailable: no session or no answer; to be tried again.
        """
        with self._reading_software:
            _, shared = self._attributes.request_attributes(shared_keys=SOFTWARE_KEYS)
            self._software.wanted(shared)

    def read_limits(self) -> None:
        """
        Raises:
            NotConnected: the connection ended before the answer.
        """
        try:
            answer = self._attributes.request_limits()
        except NotConnected:
            raise
        except Unavailable as reason:
            logger.info("the server does not tell its limits (%s): assuming none", reason)
            answer = {}
        limits = parse_limits(answer)
        self._pacer.use(limits, self._clock.monotonic_s())
        if limits.messages or limits.telemetry or limits.points:
            logger.info("the server limits this device: %s", limits)
        if answer != self._state.get(LIMITS_KEY):
            self._state.put(LIMITS_KEY, answer)

    def tell_system(self) -> None:
        """Client attribute `sys_info`, as the reference writes it at every connect."""
        self._report.attributes({"sys_info": self._host.sys_info()})
