"""Where a session is made, and how."""

import ssl
from dataclasses import dataclass

from paho.mqtt.client import Client, MQTTv311


@dataclass(frozen=True, slots=True)
class Server:
    """Where to connect. `tls` None means plain MQTT."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    client: type[Client] = Client
    #: Versions of MQTT to try, in this order.
    versions: tuple[int, ...] = (MQTTv311,)
