"""What the words of OpenSSL, of a proxy and of a closed connection mean for whoever has to set it right."""

from collections.abc import Sequence

from teg.domain.errors import Unavailable

#: A piece of the library's message → cause and remedy. The first that fits counts.
TLS_FAULTS = (
    (
        "CERTIFICATE_REQUIRED",
        "the server wants a client certificate: set TB_CLIENT_CERT and TB_CLIENT_KEY",
    ),
    (
        "ALERT_CERTIFICATE_EXPIRED",
        "the server says that our client certificate has expired: renew the file of TB_CLIENT_CERT",
    ),
    (
        "ALERT_UNKNOWN_CA",
        "the server does not know the authority of our client certificate: TB_CLIENT_CERT has to be one that it trusts",
    ),
    (
        "ALERT_BAD_CERTIFICATE",
        "the server does not accept our client certificate: TB_CLIENT_CERT has to be one that it trusts",
    ),
    (
        "ALERT_CERTIFICATE_UNKNOWN",
        "the server does not accept our client certificate: TB_CLIENT_CERT has to be one that it trusts",
    ),
    (
        "certificate is not yet valid",
        "the server's certificate is not valid yet: this device's clock is behind; set the clock (timedatectl)",
    ),
    (
        "certificate has expired",
        "the server's certificate has expired: renew it on the server, unless this device's clock is wrong",
    ),
    (
        "mismatch, certificate is not valid for",
        "the server's certificate is for another name: TB_HOST has to be a name that stands in the certificate",
    ),
    (
        "certificate verify failed",
        "the server's certificate is signed by an authority that this device does not trust: THINGSBOARD_CA_CERT has "
        "to name the file with the certificate of that authority",
    ),
    (
        "WRONG_VERSION_NUMBER",
        "the server does not speak TLS on this port: TB_PORT has to be its TLS port (usually 8883); on a trusted "
        "network without TLS set TB_TLS=off",
    ),
    (
        "EOF occurred in violation of protocol",
        "the server closed the connection during the TLS handshake: is TB_PORT its TLS port (usually 8883)? On a "
        "trusted network without TLS set TB_TLS=off",
    ),
    (
        "HANDSHAKE_FAILURE",
        "the server and this device have no TLS version and cipher in common: the server needs TLS 1.2 or newer",
    ),
)

CLOSED = "closed by the server"
#: A TLS port answers a plain CONNECT by closing.
CLOSED_PLAIN = f"{CLOSED} before it answered; if this is the server's TLS port (usually 8883), set TB_TLS=on"


def explained(error: str) -> str:
    """`error` with its meaning in front, where the meaning is known."""
    meaning = next((text for words, text in TLS_FAULTS if words in error), None)
    return f"{meaning} ({error})" if meaning else error


class ProxyFailed(Unavailable):
    """There is no way through the proxy; the message has cause and remedy."""


class UpgradeRefused(Unavailable):
    """The server does not speak MQTT over WebSocket there; the message has cause and remedy."""


#: What a proxy answers when it could not connect itself; 500 is tinyproxy's.
_CANNOT_CONNECT = (500, 502, 503, 504)
#: 401 is tinyproxy's for a wrong password.
_WANTS_LOGIN = (401, 407)


def proxy_unreachable(proxy: str, error: str) -> str:
    return f"the proxy {proxy} cannot be reached ({error}): TB_PROXY has to name it, http://host:port"


def no_proxy_answers(proxy: str) -> str:
    return f"what answers on {proxy} is no HTTP proxy: TB_PROXY has to name one, http://host:port"


def proxy_refused(status: int, proxy: str, target: str, known: bool, schemes: Sequence[str] = ()) -> str:
    """`known`: a user was given; `schemes`: what the proxy asks for."""
    if status in _WANTS_LOGIN:
        offered = {scheme.lower().rstrip(",") for scheme in schemes}
        if offered and "basic" not in offered:
            ways = ", ".join(sorted(offered))[:60]
            return f"the proxy {proxy} asks for a login by {ways} ({status}): the gateway knows Basic only"
        if known:
            return f"the proxy {proxy} does not take this user and password ({status}): correct them in TB_PROXY"
        return f"the proxy {proxy} wants a user and a password ({status}): TB_PROXY=http://user:password@host:port"
    if status in _CANNOT_CONNECT:
        return (
            f"the proxy {proxy} cannot reach {target} ({status}): check TB_HOST and TB_PORT, and that the server runs"
        )
    if status in (400, 403, 405):
        return (
            f"the proxy {proxy} does not allow a connection to {target} ({status}): have it allowed (CONNECT), or use "
            f"the server's port 443, which is usually allowed"
        )
    return f"the proxy {proxy} refuses the connection to {target} with {status}: ask whoever runs it"


def no_websocket_answers(path: str) -> str:
    return f"no WebSocket answers on {path}: TB_WEBSOCKET_PATH and TB_PORT have to lead to MQTT over WebSocket"


def upgrade_refused(status: int, path: str) -> str:
    if status in _CANNOT_CONNECT:
        return f"the web server cannot reach what speaks MQTT behind {path} ({status}): see the server's log"
    if status in (401, 403):
        return f"the web server does not let this device open {path} ({status}): see its configuration"
    if 300 <= status < 400:
        return f"the web server sends on from {path} ({status}): TB_HOST and TB_PORT have to be where it sends to"
    if status == 404:
        return f"the web server knows no {path} (404): TB_WEBSOCKET_PATH has to be the path of MQTT over WebSocket"
    return (
        f"the web server does not open a WebSocket on {path} ({status}): TB_WEBSOCKET_PATH has to be the path of MQTT "
        f"over WebSocket, and what stands before the server has to pass the upgrade on"
    )
