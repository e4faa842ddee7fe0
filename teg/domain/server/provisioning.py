"""Getting a token: from the token file, or from the server when the device is new (ThingsBoard device provisioning)."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from teg.domain.errors import Refused, Unavailable

logger = logging.getLogger("gateway.provisioning")


@dataclass(frozen=True, slots=True)
class ProvisionKeys:
    """The device profile's provisioning credentials; `secret` never appears in a log."""

    device_name: str
    key: str
    secret: str


class TokenFile(Protocol):
    def read(self) -> str | None:
        """The token without surrounding white space, None when there is no file; raises Refused when unusable."""
        ...

    def write(self, token: str) -> None:
        """Durable, readable by our user only; raises Unavailable."""
        ...


class AlreadyExists(Refused):
    """The server has a device of this name: a person must delete it or copy its token."""


class Credentials:
    """`token()` for every connection: the file is read anew, so an operator's correction is taken up by itself."""

    def __init__(self, file: TokenFile, keys: ProvisionKeys | None, ask: Callable[[bytes], bytes]) -> None:
        self._file = file
        self._keys = keys
        self._ask = ask
        self._unsaved: str | None = None

    def token(self) -> str:
        """
        Raises:
            Unavailable: no answer from the server.
            Refused: no token and no way to get one; the message says what a person has to do.
        """
        token = self._file.read()
        if token is not None:
            return token
        if self._keys is None:
            raise Refused(f"there is no {self._file} and no provisioning key and secret; create one of the two")
        if self._unsaved is None:
            answer = self._ask(encode_provision_request(self._keys))
            self._unsaved = parse_provision_answer(answer, self._keys.device_name)
        return self._stored(self._unsaved, self._keys.device_name)

    def _stored(self, token: str, device_name: str) -> str:
        """The server gives a token once: one that cannot be stored now is used, and stored at a later connection."""
        try:
            self._file.write(token)
        except Unavailable as reason:
            logger.error(
                "provisioned as device '%s', but the access token is lost at a restart: %s", device_name, reason
            )
        else:
            self._unsaved = None
            logger.info("provisioned as device '%s'; the access token is stored", device_name)
        return token


def encode_provision_request(keys: ProvisionKeys, credentials: Mapping[str, Any] | None = None) -> bytes:
    """`credentials`: those that the device shall have; none: the server makes an access token."""
    return orjson.dumps(
        {
            "deviceName": keys.device_name,
            "provisionDeviceKey": keys.key,
            "provisionDeviceSecret": keys.secret,
            **(credentials or {}),
        }
    )


def parse_provision_answer(payload: bytes, device_name: str) -> str:
    """The access token; raises as `provisioned_value`."""
    token = provisioned_value(payload, device_name, "ACCESS_TOKEN")
    if not isinstance(token, str):
        raise Refused("the server gave no access token")
    if not token.strip():
        raise Refused("the server gave an empty access token")
    return token.strip()


def provisioned_value(payload: bytes, device_name: str, kind: str) -> Any:
    """The value of the credentials, which are of `kind` (ThingsBoard's `credentialsType`).

    Raises:
        AlreadyExists: status FAILURE, which ThingsBoard gives when the name is taken (or not pre-created).
        Refused: unknown key, wrong secret, or credentials of a kind we did not ask for.
        Unavailable: not an answer at all.
    """
    try:
        answer: Any = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise Unavailable(f"the provisioning answer is not JSON: {error}") from error
    if not isinstance(answer, dict):
        raise Unavailable("the provisioning answer is not an object")
    status = answer.get("status")
    if status == "FAILURE":
        raise AlreadyExists(
            f"the server could not provision '{device_name}': most likely a device of this name already exists. "
            "Delete it in ThingsBoard, choose another THINGSBOARD_DEVICE_NAME, or copy its token into the token file"
        )
    if status == "NOT_FOUND":
        raise Refused("the server does not know this provisioning key and secret (or provisioning is switched off)")
    if status != "SUCCESS" or answer.get("credentialsType") != kind:
        wanted = "access token" if kind == "ACCESS_TOKEN" else "such credentials"
        raise Refused(f"the server gave no {wanted} (only credentials of type {kind} are used)")
    return answer.get("credentialsValue")
