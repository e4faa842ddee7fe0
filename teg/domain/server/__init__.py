"""The server: its wire, its limits, its attributes. What other subjects use of it stands here."""

from teg.domain.limits import MAX_PAYLOAD_BYTES
from teg.domain.server.rate_limits import Bucket, OnTheWay, Pacer, TokenBucket
from teg.domain.server.reconnect import LinkHistory
from teg.domain.server.wire import (
    ATTRIBUTES,
    MAX_UNACKNOWLEDGED,
    PROBE,
    RPC_RESPONSE,
    SOFTWARE_CHUNK_FILTER,
    SOFTWARE_CHUNK_REQUEST,
    SOFTWARE_CHUNK_RESPONSE,
    TELEMETRY,
    RpcRequest,
    addressed_to,
    encodable,
    encode_rpc_response,
    encode_telemetry,
    fitted,
)

__all__ = [
    "ATTRIBUTES",
    "MAX_PAYLOAD_BYTES",
    "MAX_UNACKNOWLEDGED",
    "PROBE",
    "RPC_RESPONSE",
    "SOFTWARE_CHUNK_FILTER",
    "SOFTWARE_CHUNK_REQUEST",
    "SOFTWARE_CHUNK_RESPONSE",
    "TELEMETRY",
    "Bucket",
    "LinkHistory",
    "OnTheWay",
    "Pacer",
    "RpcRequest",
    "TokenBucket",
    "addressed_to",
    "encodable",
    "encode_rpc_response",
    "encode_telemetry",
    "fitted",
]
