"""Credentials that the settings give: MQTT basic or a client certificate, which the server may be told.

With provisioning keys the server makes the device with these credentials, once; without, a person has made it there.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping
from typing import Any

from teg.domain.ports import State
from teg.domain.server.login import Kind, Login
from teg.domain.server.provisioning import AlreadyExists, ProvisionKeys, encode_provision_request, provisioned_value

logger = logging.getLogger("gateway.provisioning")

PROVISIONED_KEY = "server.provisioned"
TYPES = {Kind.BASIC: "MQTT_BASIC", Kind.CERTIFICATE: "X509_CERTIFICATE"}


class OwnCredentials:
    """`login()` for every connection; what was provisioned is remembered in the state."""

    def __init__(
        self,
        login: Login,
        certificate: Callable[[], str] | None,
        keys: ProvisionKeys | None,
        ask: Callable[[bytes], bytes],
        state: State,
        server: str,
    ) -> None:
        """`certificate` reads the PEM of a client certificate anew, and has it used from now on.
        `server`: host and port, another one has to be told again."""
        self._login = login
        self._certificate = certificate
        self._keys = keys
        self._ask = ask
        self._state = state
        self._server = server

    def login(self) -> Login:
        """
        Raises:
            Unavailable: no answer from the server, or no state.
            Refused: the files cannot be used, or the server does not take us; the message says what to do.
        """
        pem = "" if self._certificate is None else self._certificate()
        if self._keys is not None:
            self._provision(self._keys, pem)
        return self._login

    def _provision(self, keys: ProvisionKeys, pem: str) -> None:
        mark = {"server": self._server, "credentials": self._identity(pem)}
        if self._state.get(PROVISIONED_KEY) == mark:
            return
        try:
            answer = self._ask(encode_provision_request(keys, provision_fields(self._login, pem)))
            provisioned_value(answer, keys.device_name, TYPES[self._login.kind])
        except AlreadyExists:
            logger.info("the server has device '%s' already: trying with our credentials", keys.device_name)
            return
        self._state.put(PROVISIONED_KEY, mark)
        logger.info("provisioned as device '%s' with our own %s", keys.device_name, self._login.kind.value)

    def _identity(self, pem: str) -> str:
        """Tells these credentials from others, and nothing of what they are."""
        parts = (self._login.kind.name, self._login.client_id, self._login.user or "", pem)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def provision_fields(login: Login, pem: str) -> Mapping[str, Any]:
    """What ThingsBoard wants beside the keys (device provisioning, `credentialsType`)."""
    if login.kind is Kind.CERTIFICATE:
        return {"credentialsType": TYPES[login.kind], "hash": pem}
    fields = {"clientId": login.client_id or None, "username": login.user, "password": login.password}
    return {"credentialsType": TYPES[login.kind], **{name: value for name, value in fields.items() if value}}
