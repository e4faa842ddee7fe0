"""Which server the conformance tests are about, from the environment; and whether it can be tested at all.

`python -m tests.support.conformance_target` says which variables are missing, or why the server cannot be tested.
"""

import base64
import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import requests

from teg.simulator.thingsboard.server_versions import ServerVersion, behaviour_of
from tests.support.rest import Rest
from tests.support.stand_in_client import PahoDevice, RawSocket, connect_packet

NEEDED = {
    "TB_TEST_URL": "the REST API, such as https://tb.example.org:8443",
    "TB_TEST_MQTT": "the MQTT port, such as tb.example.org:1883 or mqtts://tb.example.org:8883",
    "TB_TEST_USER": "a tenant administrator, best of a tenant made for these tests",
    "TB_TEST_PASSWORD": "this user's password",
}
OPTIONAL = {
    "TB_TEST_CA": "PEM file of the authority, or of the self-signed certificate, of both ports",
    "TB_TEST_VERSION": "the release, where the server does not tell it",
    "TB_TEST_PATIENCE_S": "how long a slow server may take for one thing (20)",
    "TB_TEST_LIMITED_USER": "administrator of a tenant whose profile has rate limits",
    "TB_TEST_LIMITED_PASSWORD": "that user's password",
    "TB_TEST_CRASH": "a shell command that kills the server and starts it again",
    "TB_TEST_REPORT": "where the report goes, without suffix (build/conformance)",
}


class CannotTest(Exception):  # noqa: N818 - what is wrong, for a person
    """The text says which variable to look at."""


@dataclass(frozen=True, slots=True)
class Target:
    url: str
    host: str
    port: int
    user: str = "tenant@thingsboard.org"
    password: str = "tenant"
    version: str = "4.2.1.1"
    #: Our own stand-in lacks nothing: there a statement that cannot be checked is a failure.
    is_stand_in: bool = True
    tls: bool = False
    ca_file: str | None = None
    patience_s: float = field(default_factory=lambda: float(os.environ.get("TB_TEST_PATIENCE_S", "20")))
    #: Kill the server, and return when it listens again.
    crash: Callable[[], object] | None = None

    @property
    def behaviour(self) -> ServerVersion:
        return behaviour_of(self.version)

    def rest(self) -> "PatientRest":
        return PatientRest(self)

    def paho(self, token: str, **options: Any) -> PahoDevice:
        """A device's client that is connected."""
        client = PahoDevice(token, tls=self.tls, ca_file=self.ca_file, **options)
        client.patience_s = self.patience_s
        return client.opened(self.host, self.port)

    def raw(self) -> RawSocket:
        return RawSocket(self.host, self.port, self.context(), self.patience_s)

    def context(self) -> ssl.SSLContext | None:
        return ssl.create_default_context(cafile=self.ca_file) if self.tls else None


class PatientRest(Rest):
    """Waits where the server says that there were too many requests."""

    def __init__(self, target: Target) -> None:
        self._patience_s = target.patience_s
        super().__init__(target.url, target.user, target.password, target.ca_file, target.patience_s)

    def get_once(self, path: str) -> requests.Response:
        """Whatever the answer, 429 included."""
        return super()._request("GET", path, None)

    def _request(self, method: str, path: str, status: int | None, **options: Any) -> requests.Response:
        deadline_s = time.monotonic() + 3 * self._patience_s
        while True:
            answer = super()._request(method, path, None, **options)
            if answer.status_code != 429 or status == 429 or time.monotonic() > deadline_s:
                break
            time.sleep(0.5)
        self.expect(answer, status)
        return answer


def named_target(environment: Mapping[str, str] = os.environ, user: str = "TB_TEST_USER") -> Target | None:
    """None when no server is named. `user` is the variable with the user's name.

    Raises:
        CannotTest: one of the variables is missing or makes no sense.
    """
    if not any(environment.get(name) for name in NEEDED):
        return None
    password = user.replace("USER", "PASSWORD")
    if missing := [name for name in dict.fromkeys((*NEEDED, user, password)) if not environment.get(name)]:
        raise CannotTest(f"missing: {', '.join(missing)}")
    tls, host, port = _place(environment["TB_TEST_MQTT"])
    ca_file = environment.get("TB_TEST_CA") or None
    if ca_file and not os.access(ca_file, os.R_OK):
        raise CannotTest(f"TB_TEST_CA: {ca_file} cannot be read")
    command = environment.get("TB_TEST_CRASH")
    return Target(
        environment["TB_TEST_URL"].rstrip("/"),
        host,
        port,
        environment[user],
        environment[password],
        environment.get("TB_TEST_VERSION", ""),
        is_stand_in=False,
        tls=tls,
        ca_file=ca_file,
        crash=(lambda: _crash(command, host, port)) if command else None,
    )


def _place(text: str) -> tuple[bool, str, int]:
    scheme, _, place = text.rpartition("://")
    host, _, port = place.rpartition(":")
    if scheme not in ("", "mqtt", "mqtts") or not host or not port.isdecimal():
        raise CannotTest(f"TB_TEST_MQTT: {text!r} is not of the form HOST:PORT or mqtts://HOST:PORT")
    return scheme == "mqtts", host.strip("[]"), int(port)


def _crash(command: str, host: str, port: int) -> None:
    subprocess.run(command, shell=True, check=True, timeout=600)
    deadline_s = time.monotonic() + 600
    while True:
        with contextlib.suppress(OSError), socket.create_connection((host, port), 5):
            return
        assert time.monotonic() < deadline_s, f"{host}:{port} does not listen again after {command!r}"
        time.sleep(1)


def checked(target: Target) -> Target:
    """The target with its version, when a tenant administrator can log in and MQTT is spoken.

    Raises:
        CannotTest: with what is wrong.
    """
    version = target.version or _told_version(target)
    _speak_mqtt(target)
    return Target(**{name: getattr(target, name) for name in Target.__dataclass_fields__} | {"version": version})


def _told_version(target: Target) -> str:
    rest = _logged_in(target)
    try:
        answer = rest.get("/api/system/info", status=None)
        told = answer.json().get("version", "") if answer.ok else ""
    except (requests.RequestException, ValueError):
        told = ""
    finally:
        rest.close()
    return str(told or "unknown")


def _logged_in(target: Target) -> PatientRest:
    try:
        rest = target.rest()
    except requests.exceptions.SSLError as error:
        raise CannotTest(f"TB_TEST_URL: the certificate is not trusted, see TB_TEST_CA: {error}") from error
    except requests.RequestException as error:
        raise CannotTest(f"TB_TEST_URL: {target.url} does not answer: {error}") from error
    except AssertionError as error:
        raise CannotTest(_login_problem(target, str(error))) from error
    except (ValueError, KeyError) as error:
        raise CannotTest(f"TB_TEST_URL: {target.url} answers, but not as ThingsBoard does") from error
    authority = _authority(rest.token)
    if authority != "TENANT_ADMIN":
        rest.close()
        raise CannotTest(f"TB_TEST_USER: {target.user} is a {authority}; a tenant administrator is needed")
    return rest


def _login_problem(target: Target, said: str) -> str:
    if ": 401" in said:
        return f"TB_TEST_USER, TB_TEST_PASSWORD: {target.url} refuses {target.user}: {said}"
    return f"TB_TEST_URL: {target.url} has no login as ThingsBoard has: {said[:300]}"


def _authority(token: str) -> str:
    """What ThingsBoard's token says of its user; the signature is the server's business."""
    try:
        part = token.split(".")[1]
        scopes = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))["scopes"]
        return str(scopes[0])
    except (IndexError, KeyError, TypeError, ValueError):
        return "user of an unknown kind"


def _speak_mqtt(target: Target) -> None:
    """Any CONNACK will do."""
    try:
        raw = target.raw()
        said = raw.send(connect_packet("conformance-nobody")).packet()
        raw.socket.close()
    except ssl.SSLError as error:
        raise CannotTest(f"TB_TEST_MQTT: no TLS with a certificate that is trusted, see TB_TEST_CA: {error}") from error
    except OSError as error:
        raise CannotTest(f"TB_TEST_MQTT: {target.host}:{target.port}: {error}") from error
    if said[:1] != b"\x20":
        hint = "" if target.tls else "; mqtts:// where it is TLS"
        raise CannotTest(f"TB_TEST_MQTT: {target.host}:{target.port} does not speak MQTT{hint}")


def usage() -> str:
    lines = ["make conformance checks a ThingsBoard server. It is named by variables:"]
    lines += [f"  {name:26}{what}" for name, what in NEEDED.items()]
    lines += ["and may be described by:", *(f"  {name:26}{what}" for name, what in OPTIONAL.items())]
    lines.append("Without any of them `make test` checks the stand-in (docs/stand-in.md).")
    return "\n".join(lines)


def main() -> int:
    try:
        target = named_target()
        if target is None:
            print(usage(), file=sys.stderr)
            return 2
        found = checked(target)
    except CannotTest as problem:
        print(f"{usage()}\n\ncannot test: {problem}", file=sys.stderr)
        return 2
    print(f"ThingsBoard {found.version} at {found.url}, MQTT at {found.host}:{found.port}, as {found.user}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
