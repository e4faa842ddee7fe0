"""Turns what the session hears into tasks: parse and enqueue, nothing else, because it runs on the network thread."""

import logging

from tasks.attributes import handle_attribute_push, synchronise
from tasks.rpc import handle_rpc, refuse_rpc
from tasks.telemetry import publish_records
from teg.domain.errors import Refused
from teg.domain.redaction import redacted_text
from teg.domain.server.attributes import LIMITS_QUESTION
from teg.domain.server.wire import AttributePush, RpcRequest, parse_message, parse_rpc_topic

logger = logging.getLogger("gateway.listener")

#: Of an odd payload, this much is shown in the log.
SHOWN_BYTES = 2048


class MqttListener:
    """The session's callbacks."""

    def received(self, topic: str, payload: bytes) -> None:
        """Enqueue what the server asks for. Nothing escapes: an exception here would end the network thread."""
        try:
            self._enqueue(topic, payload)
        except Exception:
            logger.exception("a message on %s could not be enqueued", topic[:200])

    def connected(self) -> None:
        """After every CONNACK and SUBACK: re-read what the server wants, and send what is waiting."""
        try:
            publish_records()
            synchronise()
        except Exception:
            logger.exception("the work of a new connection could not be enqueued; the sweep will")

    def _enqueue(self, topic: str, payload: bytes) -> None:
        try:
            request = parse_message(topic, payload)
            if isinstance(request, RpcRequest) and request.method == LIMITS_QUESTION:
                logger.debug("a plain broker sent our own question back")
            elif isinstance(request, RpcRequest):
                handle_rpc(request.id, request.method, request.params)
            elif isinstance(request, AttributePush):
                handle_attribute_push(sorted(request.changed), list(request.deleted))
            else:
                logger.info("ignored a message on %s: %s", topic[:200], _shown(payload))
        except Refused as reason:
            logger.warning("refused a message on %s: %s: %s", topic[:200], reason, _shown(payload))
            if (request_id := parse_rpc_topic(topic)) is not None:  # its caller waits for an answer all the same
                refuse_rpc(request_id, str(reason)[:500])


def _shown(payload: bytes) -> str:
    return repr(redacted_text(payload[:SHOWN_BYTES].decode(errors="backslashreplace"), SHOWN_BYTES))
