"""How the server is reached, and as whom: these variables hang together, so they are read and checked together."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from teg.environment import Variables
from teg.places import Places

#: Ports where the settings name none.
WEB_PORTS = {"wss": 443, "ws": 80}


@dataclass(frozen=True, slots=True)
class ProxyAddress:
    """An HTTP proxy. Its text is for people and has no password."""

    host: str
    port: int
    user: str = ""
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """With the password: for programs and libraries, never for people."""
        login = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}@" if self.user else ""
        return f"http://{login}{self}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSettings:
    transport: str = "tcp"
    websocket_path: str = ""  #: empty where MQTT is spoken without a WebSocket
    proxy: ProxyAddress | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    client_id: str = ""
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def files(self) -> tuple[tuple[str, Path | None], ...]:
        """What nobody else may write, by its variable."""
        return ("TB_CLIENT_CERT", self.client_cert), ("TB_CLIENT_KEY", self.client_key)

    @property
    def is_basic(self) -> bool:
        return bool(self.client_id or self.user)

    @property
    def proxy_url(self) -> str | None:
        """With its password."""
        return None if self.proxy is None else self.proxy.url

    @property
    def secrets(self) -> tuple[str, ...]:
        """Words that no log, report or message may show."""
        found = [self.password or ""]
        if self.proxy is not None:
            found += [self.proxy.password, quote(self.proxy.password, safe="")]
        return tuple(secret for secret in found if secret)


class ConnectionVariables(Variables):
    """The part of the settings' reader that is about the connection."""

    def _connection(self, transport: str, tls: bool) -> ConnectionSettings:
        path = self._websocket_path()
        found = ConnectionSettings(
            transport=transport,
            websocket_path=path if transport in WEB_PORTS else "",
            proxy=self._proxy("TB_PROXY"),
            client_cert=self._existing_file("TB_CLIENT_CERT"),
            client_key=self._existing_file("TB_CLIENT_KEY"),
            client_id=self._text("TB_MQTT_CLIENT_ID"),
            user=self._text("TB_MQTT_USER") or None,
            password=self._text("TB_MQTT_PASSWORD") or None,
        )
        self._one_kind_of_credentials(found, tls)
        return found

    def _one_kind_of_credentials(self, found: ConnectionSettings, tls: bool) -> None:
        """An access token, MQTT basic, or a certificate: the server's device has one of them, too."""
        certificate, key = self._text("TB_CLIENT_CERT"), self._text("TB_CLIENT_KEY")
        if bool(certificate) != bool(key):
            here, missing = ("CERT", "KEY") if certificate else ("KEY", "CERT")
            self._complain(f"TB_CLIENT_{here} is set without TB_CLIENT_{missing}: certificate and key are a pair")
        if found.password and not found.user:
            self._complain("TB_MQTT_PASSWORD is set without TB_MQTT_USER: MQTT has no password without a user name")
        if certificate and not tls:
            self._complain("TB_CLIENT_CERT needs TLS: a certificate is shown in its handshake only")
        names = [name for name in ("TB_CLIENT_CERT", "THINGSBOARD_ACCESS_TOKEN") if self._text(name)]
        names += ["TB_MQTT_USER" if found.user else "TB_MQTT_CLIENT_ID"] if found.is_basic else []
        if len(names) > 1:
            self._complain(f"{names[0]} and {names[1]} are both set: the device has one kind of credentials, name one")

    def _transport(self) -> str:
        return self._choice("TB_TRANSPORT", "tcp", ("tcp", "wss", "ws"))

    def _port(self, transport: str) -> int:
        return self._number("TB_PORT", WEB_PORTS.get(transport), 1, 65_535)

    def _tls(self, transport: str) -> bool:
        """With a WebSocket its own name says it."""
        tls = self._switch("TB_TLS", True)
        if transport == "tcp":
            return tls
        if self._text("TB_TLS") and tls != (transport == "wss"):
            said = "on" if tls else "off"
            self._complain(f"TB_TLS={said} contradicts TB_TRANSPORT={transport}: wss is with TLS, ws without")
        return transport == "wss"

    def _websocket_path(self) -> str:
        path = self._text("TB_WEBSOCKET_PATH", "/mqtt")
        if not re.fullmatch(r"/[!-~]*", path):
            self._complain(f"TB_WEBSOCKET_PATH={path!r} is not a path on the server, e.g. /mqtt")
        return path

    def _ca_cert(self, where: Places) -> Path | None:
        """An empty variable means 'not set': compose files pass those."""
        if not self._text("THINGSBOARD_CA_CERT"):
            return None
        named = self._path("THINGSBOARD_CA_CERT", "")
        path = where.belongs(named)
        if not path.is_file() and not named.is_file():
            self._complain(f"THINGSBOARD_CA_CERT={named} does not exist or is not a file")
        return path

    def _proxy(self, name: str) -> ProxyAddress | None:
        """No problem's text shows the value: it may hold a password."""
        text = self._text(name)
        if not text:
            return None
        try:
            parts = urlsplit(text)
            host, port, user, password = parts.hostname, parts.port, parts.username, parts.password
        except ValueError:
            self._complain(f"{name} is not of the form http://host:port or http://user:password@host:port")
            return None
        if parts.scheme != "http":
            self._complain(f"{name} does not begin with http://: a proxy that is asked by CONNECT, and no other kind")
        elif not host or port is None or parts.path not in ("", "/") or parts.query or parts.fragment:
            self._complain(f"{name} is not of the form http://host:port or http://user:password@host:port")
        elif bool(user) != bool(password):
            self._complain(
                f"{name} has only half of the pair of user and password; special characters as %40 and so on"
            )
        else:
            return ProxyAddress(host, port, unquote(user or ""), unquote(password or ""))
        return None
