"""A tenant administrator at the REST API of ThingsBoard, the stand-in's or a real one."""

from typing import Any

import requests

PATIENCE_S = 20


class Rest:
    """Logged in on construction. Each request names the status that it expects; None takes any."""

    def __init__(
        self,
        url: str,
        user: str = "tenant@thingsboard.org",
        password: str = "tenant",
        ca_file: str | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.url = url
        self._session = requests.Session()
        self._verify = ca_file or True
        self._timeout_s = patience_s
        tokens = self.post("/api/auth/login", {"username": user, "password": password}).json()
        self.token: str = tokens["token"]
        self._session.headers["X-Authorization"] = f"Bearer {self.token}"

    def get(self, path: str, status: int | None = 200, **query: Any) -> requests.Response:
        return self._request("GET", path, status, params=query)

    def post(self, path: str, body: Any = None, status: int | None = 200, **options: Any) -> requests.Response:
        return self._request("POST", path, status, json=body, **options)

    def delete(self, path: str, status: int | None = 200, **query: Any) -> requests.Response:
        return self._request("DELETE", path, status, params=query)

    def close(self) -> None:
        self._session.close()

    def _request(self, method: str, path: str, status: int | None, **options: Any) -> requests.Response:
        options |= {"timeout": self._timeout_s, "verify": self._verify}  # the session's own yields to the environment's
        answer = self._session.request(method, self.url + path, **options)
        self.expect(answer, status)
        return answer

    @staticmethod
    def expect(answer: requests.Response, status: int | None) -> None:
        request = answer.request
        said = f"{request.method} {request.path_url}: {answer.status_code} {answer.text[:500]}"
        assert status in (None, answer.status_code), said
