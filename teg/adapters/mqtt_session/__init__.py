"""The session with the server, on paho."""

from paho.mqtt.client import MQTTv5, MQTTv311

from teg.adapters.mqtt_session.server import Server
from teg.adapters.mqtt_session.session import MqttSession

__all__ = ["MQTTv5", "MQTTv311", "MqttSession", "Server"]
