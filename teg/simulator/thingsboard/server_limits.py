"""Sizes and times that a ThingsBoard installation sets in its configuration, with its defaults."""

from dataclasses import dataclass, field

from teg.simulator.thingsboard.device_state import PushOrder
from teg.simulator.thingsboard.rate_limits import RateLimits
from teg.simulator.thingsboard.server_versions import ServerVersion, behaviour_of


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Tests shorten the times; the defaults are those of thingsboard.yml.

    `rpc_min_timeout_s` is the exception: the REST API of the real server lifts every timeout to 5 s.
    """

    #: Of the release whose behaviour it has (`server_versions`).
    version: str = "4.2.1.1"
    #: Of the two pushes of a package assignment, unless the caller says otherwise.
    push_order: PushOrder = "delete_first"
    #: Profile option "Send PUBACK on PUBLISH message validation failure": acknowledged, then dropped.
    ack_bad_payloads: bool = False
    max_payload_bytes: int = 65_536
    max_inflight_messages: int = 100
    #: Messages of one pack of the rule engine (TB_QUEUE_RULE_ENGINE_... poll size, 1,000 by default).
    pack_size: int = 1000
    rate_limits: RateLimits | str | None = field(default=None)
    #: Requests of the tenant's users to the REST API, such as "500:1"; beyond it they get 429.
    rest_rate_limit: str | None = None
    #: A device that was not heard for so long is not `active` any more.
    device_inactive_s: float = 600.0
    rpc_delivery_timeout_s: float = 10.0
    rpc_min_timeout_s: float = 0.0
    rpc_max_retries: int = 5
    client_rpc_timeout_s: float = 60.0
    inactivity_timeout_s: float = 600.0
    provisioned_session_s: float = 60.0

    @property
    def behaviour(self) -> ServerVersion:
        return behaviour_of(self.version)

    def session_limits(self) -> dict[str, object]:
        """The answer to the client RPC `getSessionLimits`."""
        return {
            "maxPayloadSize": self.max_payload_bytes,
            "maxInflightMessages": self.max_inflight_messages,
            "rateLimits": RateLimits.of(self.rate_limits).as_json(),
        }
