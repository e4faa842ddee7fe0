"""ThingsBoard's REST API, as far as one device has to be made there. For `teg init`; nothing is kept.

Source: ThingsBoard's AuthController and DeviceController (`/api/auth/login`, `/api/device`).
"""

import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from teg.domain.errors import Refused, Unavailable

TIMEOUT_S = 15.0
MAX_ANSWER_BYTES = 1 << 20


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirection would take the credentials to another address."""

    def redirect_request(self, *_: Any) -> None:
        return None


class ServerRest:
    """Every method raises Refused when the server says no, Unavailable when it does not answer."""

    def __init__(self, url: str, context: ssl.SSLContext | None) -> None:
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise Refused(f"'{url}' is no address of a web page: https://…")
        self._url = url.rstrip("/")
        handlers: list[urllib.request.BaseHandler] = [_NoRedirects()]
        if context is not None:
            handlers.append(urllib.request.HTTPSHandler(context=context))
        self._opener = urllib.request.build_opener(*handlers)
        self._authorization = ""

    def log_in(self, user: str, password: str) -> None:
        self.use(str(self._call("/api/auth/login", {"username": user, "password": password}).get("token")))

    def use(self, token: str) -> None:
        """Of the web page's session (a JSON Web Token), or an API key (ThingsBoard from 4.3 on)."""
        self._authorization = ("Bearer " if token.count(".") == 2 else "ApiKey ") + token

    def find_device(self, name: str) -> str | None:
        """Its id; None when there is none of this name."""
        try:
            found = self._call(f"/api/tenant/devices?deviceName={urllib.parse.quote(name, safe='')}")
        except NotThere:
            return None
        return _id(found)

    def make_device(self, name: str) -> str:
        """With the tenant's default profile; returns its id."""
        return _id(self._call("/api/device", {"name": name}))

    def access_token(self, device_id: str) -> str:
        found = self._call(f"/api/device/{device_id}/credentials")
        token = found.get("credentialsId")
        if found.get("credentialsType") != "ACCESS_TOKEN" or not isinstance(token, str) or not token:
            raise Refused("the device has other credentials than an access token")
        return token

    def _call(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._authorization:
            headers["X-Authorization"] = self._authorization
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, headers)  # noqa: S310 - the scheme was looked at
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as answer:
                return self._object(answer.read(MAX_ANSWER_BYTES))
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error) from error
        except (OSError, ValueError) as error:
            raise Unavailable(f"{self._url}: {getattr(error, 'reason', error)}") from error

    def _object(self, answer: bytes) -> dict[str, Any]:
        try:
            found = json.loads(answer)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise Refused(f"{self._url} answers, but not as ThingsBoard does: a proxy, or a portal that wants a login?")
        return found

    def _refusal(self, error: urllib.error.HTTPError) -> Refused:
        if error.code in (301, 302, 303, 307, 308):
            return Refused(f"{self._url} sends on to {error.headers.get('Location')}: give that address")
        try:
            told = str(json.loads(error.read(MAX_ANSWER_BYTES)).get("message"))
        except (ValueError, AttributeError, OSError):
            told = str(error.reason)
        return (NotThere if error.code == 404 else Refused)(f"{self._url}: {told} ({error.code})")


class NotThere(Refused):
    """404"""


def _id(device: dict[str, Any]) -> str:
    found = device.get("id")
    if not isinstance(found, dict) or not isinstance(found.get("id"), str):
        raise Refused("the server's answer names no device")
    return str(found["id"])
