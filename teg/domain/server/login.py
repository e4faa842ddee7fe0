"""As whom a session is made: an access token, MQTT basic credentials, or a client certificate."""

from dataclasses import dataclass, field
from enum import Enum


class Kind(Enum):
    """Its value is what people call it."""

    TOKEN = "access token"  # noqa: S105 - a name
    BASIC = "user name and password"
    CERTIFICATE = "client certificate"


@dataclass(frozen=True, slots=True)
class Login:
    """What a CONNECT carries. With a certificate nothing: the server looks at that alone."""

    kind: Kind
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    client_id: str = ""

    @classmethod
    def of(cls, given: "str | Login") -> "Login":
        """A text is an access token."""
        return given if isinstance(given, Login) else cls(Kind.TOKEN, given, "")


UNKNOWN = {
    Kind.BASIC: "the server does not know this client id, user name and password (CONNACK {code}); compare "
    "TB_MQTT_CLIENT_ID, TB_MQTT_USER and TB_MQTT_PASSWORD with the device's credentials",
    Kind.CERTIFICATE: "the server has no device with this client certificate (CONNACK {code}); put the certificate "
    "into the device's credentials (X.509)",
}
#: CONNACK codes that are about who we are.
WHO = (2, 4, 5)
