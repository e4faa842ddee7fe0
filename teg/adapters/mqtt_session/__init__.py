"""The session with the server, on paho."""

from teg.adapters.mqtt_session.connection import Server
from teg.adapters.mqtt_session.session import MqttSession

__all__ = ["MqttSession", "Server"]
