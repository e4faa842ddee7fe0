"""ThingsBoard's REST API as a tenant administrator, for the commands that speak with the server as a person would.

The gateway itself never does: it has a device's token only. Paths and bodies: ThingsBoard's own API documentation
(Swagger UI of the server).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from teg.domain.errors import Refused, Unavailable

PATIENCE_S = 20.0
PAGE = 100


class ThingsBoardRest:
    """Of a request that fails the server's own words are told. Nothing of the credentials is kept."""

    def __init__(
        self, url: str, user: str, password: str, ca_cert: Path | None = None, proxy_url: str | None = None
    ) -> None:
        """`url` such as `https://tb.example.org`; `ca_cert` where the public authorities do not know the server;
        `proxy_url` the way to it, None: as the environment says (HTTPS_PROXY).

        `password` is the user's; without a user it is the token of a session in the web page (a JSON Web Token), or an
        API key (ThingsBoard from 4.3 on).

        Raises:
            Refused: no address of a server, or wrong credentials.
            Unavailable: no answer.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Refused(f"{url!r} is not the address of a server, such as https://tb.example.org")
        self.url = url.rstrip("/")
        self._proxies = None if proxy_url is None else {"http": proxy_url, "https": proxy_url}
        self._session = requests.Session()
        #: Given with every request: the session's own yields to REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE.
        self._verify = str(ca_cert) if ca_cert else None
        if user:
            password = self.post("/api/auth/login", {"username": user, "password": password})["token"]
        self._session.headers["X-Authorization"] = authorization(password)

    def close(self) -> None:
        self._session.close()

    def __enter__(self) -> "ThingsBoardRest":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, path: str, **query: Any) -> Any:
        return self._request("GET", path, query)

    def post(self, path: str, body: Any = None, **query: Any) -> Any:
        return self._request("POST", path, query, body)

    def delete(self, path: str, **query: Any) -> Any:
        return self._request("DELETE", path, query)

    def find(self, path: str, **query: Any) -> Any:
        """None where the server has no such thing."""
        return self._request("GET", path, query, missing=True)

    def pages(self, path: str, **query: Any) -> Iterator[Mapping[str, Any]]:
        """Every entry of a list that comes in pages."""
        page = 0
        while True:
            found = self.get(path, pageSize=PAGE, page=page, **query)
            yield from found["data"]
            if not found.get("hasNext"):
                return
            page += 1

    def _request(
        self, method: str, path: str, query: Mapping[str, Any], body: Any = None, missing: bool = False
    ) -> Any:
        """
        Raises:
            Refused: the server refuses it (400–499).
            Unavailable: no answer, or the server is in trouble.
        """
        try:
            answer = self._session.request(
                method,
                self.url + path,
                params=query,
                json=body,
                timeout=PATIENCE_S,
                allow_redirects=False,
                proxies=self._proxies,
                verify=self._verify,
            )
        except requests.RequestException as error:
            raise Unavailable(f"{self.url} does not answer: {error}") from error
        if missing and answer.status_code == requests.codes.not_found:
            return None
        if answer.is_redirect:  # to follow it would take the credentials to another address
            raise Refused(f"{self.url} sends on to {answer.headers.get('Location')}: give that address")
        if answer.status_code >= requests.codes.internal_server_error:
            raise Unavailable(f"{method} {path}: {_words(answer)}")
        if answer.status_code >= requests.codes.bad_request:
            raise Refused(f"{method} {path}: {_words(answer)}")
        try:
            return answer.json() if answer.content else None
        except ValueError as error:
            raise Refused(
                f"{self.url} answers, but not as ThingsBoard does: a proxy, or a portal that wants a login?"
            ) from error


def authorization(token: str) -> str:
    """The header's value: a session's token has three parts, an API key has one."""
    return ("Bearer " if token.count(".") == 2 else "ApiKey ") + token


def _words(answer: requests.Response) -> str:
    """The server's message, not its body: that may be a page of a proxy in between."""
    try:
        message = str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        message = answer.reason or "no reason given"
    return f"{message[:200]} ({answer.status_code})"
