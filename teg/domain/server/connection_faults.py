"""What the words of OpenSSL and of a closed connection mean for whoever has to set it right."""

#: A piece of the library's message → cause and remedy. The first that fits counts.
TLS_FAULTS = (
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
