"""The way to the server: TCP, a proxy, TLS, a WebSocket, as the settings say."""

from teg.adapters.server_way.way import Stream, Way

__all__ = ["Stream", "Way"]
