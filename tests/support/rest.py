"""A tenant administrator at the REST API of ThingsBoard, the stand-in's or a real one."""

from typing import Any

import requests

PATIENCE_S = 20


class Rest:
    """Logged in on construction. Each request names the status that it expects."""

    def __init__(self, url: str, user: str = "tenant@thingsboard.org", password: str = "tenant") -> None:
        self.url = url
        self._session = requests.Session()
        tokens = self.post("/api/auth/login", {"username": user, "password": password}).json()
        self._session.headers["X-Authorization"] = f"Bearer {tokens['token']}"

    def get(self, path: str, status: int = 200, **query: Any) -> requests.Response:
        return self._request("GET", path, status, params=query)

    def post(self, path: str, body: Any = None, status: int = 200, **options: Any) -> requests.Response:
        return self._request("POST", path, status, json=body, **options)

    def delete(self, path: str, status: int = 200, **query: Any) -> requests.Response:
        return self._request("DELETE", path, status, params=query)

    def close(self) -> None:
        self._session.close()

    def _request(self, method: str, path: str, status: int, **options: Any) -> requests.Response:
        answer = self._session.request(method, self.url + path, timeout=PATIENCE_S, **options)
        assert answer.status_code == status, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer
