"""The way to the server, step by step; each step is only tried when the one before it worked."""

import functools
import ssl
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from teg.adapters import server_probe, tls
from teg.adapters.server_way import Way
from teg.adapters.token_file import AccessTokenFile
from teg.console.checks.finding import Finding, Level, Site, fine, problem, skipped, warning
from teg.console.wording import age, harmless
from teg.domain.errors import Refused, Unavailable
from teg.domain.server.connection_faults import ProxyFailed, explained
from teg.domain.server.login import Kind, Login
from teg.domain.server.reconnect import refusal_text
from teg.settings import ConnectionSettings, Settings, environment_variable

SOON_DAYS = 21
#: The CONNACK that is not about the credentials.
UNAVAILABLE = 3


class _Place(NamedTuple):
    """The settings that lead to the server."""

    tb_host: str
    tb_port: int
    tb_tls: bool
    ca_cert: Path | None
    connection: ConnectionSettings

    @classmethod
    def of(cls, settings: Settings) -> "_Place":
        return cls(settings.tb_host, settings.tb_port, settings.tb_tls, settings.ca_cert, settings.connection)


@functools.lru_cache(maxsize=1)
def _way(place: _Place) -> Way:
    """Raises Refused: the files of the settings cannot be used for TLS."""
    return Way.of(place, tls.context_of(place))


def check_way(site: Site) -> Iterator[Finding]:
    """Proxy, name, port, TLS, certificate, WebSocket: seven lines whatever happens."""
    yield from _walked(_Place.of(site.settings))


def way_is_open(settings: Settings) -> bool:
    return all(found.level is not Level.PROBLEM for found in _walked(_Place.of(settings)))


@functools.lru_cache(
    maxsize=1
)  # asked for by the way and by the token; a server that is silent costs seconds each time
def _walked(place: _Place) -> tuple[Finding, ...]:
    try:
        way = _way(place)
    except Refused as reason:
        return (problem("server encryption", harmless(str(reason)), "name PEM files that can be used"),)
    steps = [_proxy, _name, _port, _encryption, _websocket]
    found: list[Finding] = []
    for number, step in enumerate(steps):
        found += step(place, way)
        if any(each.level is Level.PROBLEM for each in found):
            found += [skipped(SUBJECTS[later.__name__], "not tried") for later in steps[number + 1 :]]
            break
    return tuple(found)


SUBJECTS = {
    "_name": "server name",
    "_port": "server port",
    "_encryption": "server encryption",
    "_websocket": "websocket",
}


def _proxy(place: _Place, way: Way) -> Iterator[Finding]:
    if way.proxy is None:
        named = environment_variable("HTTPS_PROXY") or environment_variable("https_proxy")
        hint = "; HTTPS_PROXY of the environment is not obeyed for it" if named else ""
        yield skipped("proxy", f"not used{hint}")
        return
    try:
        took_ms = server_probe.proxy_ms(way)
    except Unavailable as reason:
        text = f"{way.proxy} cannot be reached: {harmless(str(reason))}"
        yield problem("proxy", text, "TB_PROXY has to name the site's HTTP proxy, http://host:port")
    else:
        yield fine("proxy", f"{way.proxy} answers in {took_ms:.0f} ms")


def _name(place: _Place, way: Way) -> Iterator[Finding]:
    if way.proxy is not None:
        yield skipped("server name", f"the proxy looks {place.tb_host} up")
        return
    try:
        found = server_probe.addresses(place.tb_host)
    except Unavailable as reason:
        remedy = "check TB_HOST, the network and the name server (resolvectl status)"
        yield problem("server name", f"'{place.tb_host}' cannot be resolved: {reason}", remedy)
    else:
        yield fine("server name", f"{place.tb_host} is {', '.join(found[:3])}")


def _port(place: _Place, way: Way) -> Iterator[Finding]:
    where = f"{place.tb_host}:{place.tb_port}"
    try:
        took_ms = server_probe.connect_ms(way)
    except ProxyFailed as reason:
        cause, _, remedy = str(reason).partition(": ")
        yield problem("server port", harmless(cause), harmless(remedy))
    except Unavailable as reason:
        remedy = "check TB_PORT (8883 with TLS, 1883 without), firewalls, and that the server runs"
        if place.connection.transport != "tcp":
            remedy = "check TB_PORT (443 with wss, 80 with ws), firewalls, and that the server runs"
        yield problem("server port", f"{where} cannot be reached: {reason}", remedy)
    else:
        yield fine("server port", f"{where} answers in {took_ms:.0f} ms")


def _encryption(place: _Place, way: Way) -> Iterator[Finding]:
    if way.tls is None:
        yield from _plain(place, way)
        return
    try:
        found = server_probe.certificate(way, way.tls)
    except (Refused, Unavailable) as reason:
        yield _no_tls(place, way, str(reason))
        return
    yield fine("server encryption", f"{found.protocol}, the certificate is good")
    if found.days_left < SOON_DAYS:
        text = f"the server's certificate expires in {age(found.days_left * 86_400)}"
        yield warning("certificate expiry", text, "renew it on the server")
    else:
        yield fine("certificate expiry", f"in {found.days_left:.0f} days")


def _websocket(place: _Place, way: Way) -> Iterator[Finding]:
    if not way.path:
        yield skipped("websocket", "not used (TB_TRANSPORT=tcp)")
        return
    try:
        server_probe.upgrade(way)
    except Refused as reason:
        cause, _, remedy = str(reason).partition(": ")
        yield problem("websocket", harmless(cause), harmless(remedy))
    except Unavailable as reason:
        yield problem("websocket", harmless(str(reason)), "see the log of the web server before ThingsBoard")
    else:
        yield fine("websocket", f"opens on {way.path}")


def _no_tls(place: _Place, way: Way, said: str) -> Finding:
    straight = replace(way, tls=None, path="")
    who = "" if "CERTIFICATE_VERIFY_FAILED" in said else server_probe.who_answers(straight)
    if who == "MQTT":
        text = f"port {place.tb_port} speaks plain MQTT, and TB_TLS is on"
        return problem("server encryption", text, "use the TLS port (usually 8883), or TB_TLS=off on a trusted network")
    if who:
        return _stranger(place, who)
    meaning, _, _ = explained(said).partition(" (")
    cause, _, remedy = meaning.partition(": ")
    return problem("server encryption", harmless(cause if remedy else said), remedy or "see the server's TLS settings")


def _stranger(place: _Place | Settings, who: str) -> Finding:
    """Somebody answers there, and it is no MQTT server."""
    if who == "HTTP":
        text = f"port {place.tb_port} answers as a web server: a portal that wants a login, or a wrong TB_PORT"
        remedy = "log in to the network, or ask for a way through its proxy; TB_PORT is usually 8883, 1883 without TLS"
        return problem("server encryption", text, remedy)
    text = f"port {place.tb_port} says '{harmless(who, 60)}', which is no MQTT"
    return problem(
        "server encryption", text, "TB_PORT has to be the server's MQTT port: usually 8883, 1883 without TLS"
    )


def _plain(place: _Place, way: Way) -> Iterator[Finding]:
    if server_probe.speaks_tls(way):
        text = f"port {place.tb_port} speaks TLS, and TB_TLS is off"
        remedy = "set TB_TLS=on (or leave it out)"
        if way.path:
            text, remedy = f"port {place.tb_port} speaks TLS, and TB_TRANSPORT is ws", "set TB_TRANSPORT=wss"
        yield problem("server encryption", text, remedy)
    elif not way.path and (who := server_probe.who_answers(way)) not in ("MQTT", ""):
        yield _stranger(place, who)
    else:
        text = "none: the token and all data can be read on the way"
        yield warning("server encryption", text, "set TB_TLS=on and use the TLS port, unless the network is trusted")
    yield skipped("certificate expiry", "no TLS")


def check_token(site: Site) -> Iterator[Finding]:
    """Whether there is one, and whether the server takes it; beside a running gateway that one's word counts."""
    settings = site.settings
    if settings.connection.client_cert or settings.connection.is_basic:
        yield from _own_credentials(site)
        return
    try:
        token = AccessTokenFile(settings.access_token_path, mend=False).read()
    except Refused as reason:
        yield problem("access token", str(reason), f"put the device's access token into {settings.access_token_path}")
        return
    if token is None:
        yield from _no_token(site)
    elif token[0] == token[-1] and token[0] in "'\"":
        yield problem("access token", f"the token in {settings.access_token_path} stands in quotes", "remove them")
    elif site.gateway is not None:
        yield from _session(site.gateway["connection"])
    elif way_is_open(settings):
        yield from try_token(settings, token)
    else:
        yield skipped("access token", "not tried: the server cannot be reached")


def _own_credentials(site: Site) -> Iterator[Finding]:
    """MQTT basic or a certificate, which the settings have, so that there is no token."""
    if site.gateway is not None:
        yield from _session(site.gateway["connection"])
    elif way_is_open(site.settings):
        yield from try_login(site.settings, tls.login_of(site.settings.connection))
    else:
        yield skipped("access token", "not tried: the server cannot be reached")


def check_client_certificate(site: Site) -> Iterator[Finding]:
    link = site.settings.connection
    if not link.client_cert or not link.client_key:
        yield skipped("client certificate", "not used (TB_CLIENT_CERT)")
        return
    try:
        tls.present(ssl.create_default_context(), link.client_cert, link.client_key)
        found = list(tls.troubles(link.client_cert, link.client_key, time.time()))
        _, left_days = tls.valid_days(link.client_cert, time.time())
    except Refused as reason:
        cause, _, remedy = str(reason).partition(": ")
        yield problem("client certificate", harmless(cause), harmless(remedy))
        return
    for text in found:
        cause, _, remedy = text.partition(": ")
        told = problem if "expired" in cause or "not valid" in cause else warning
        yield told("client certificate", harmless(cause), harmless(remedy))
    if not found:
        yield fine("client certificate", f"{link.client_cert}, for {left_days:.0f} days")


def _no_token(site: Site) -> Iterator[Finding]:
    """A running gateway that has keys knows how its asking went."""
    settings = site.settings
    path = settings.access_token_path
    if settings.provision_key and settings.provision_secret and site.gateway is not None:
        yield from _session(site.gateway["connection"])
    elif settings.provision_key and settings.provision_secret:
        text = f"none yet; the gateway asks for one as device '{settings.device_name}'"
        yield fine("access token", text)
    else:
        remedy = f"put the device's token into {path}, or set THINGSBOARD_PROVISION_DEVICE_KEY and …_SECRET"
        yield problem("access token", f"there is no {path}", remedy)


def _session(link: dict[str, object]) -> Iterator[Finding]:
    if link.get("shared_token"):
        remedy = "find the other device or program (a cloned SD card?) and give it a token of its own"
        yield problem("access token", harmless(str(link["last_end"])), remedy)
    elif link["connected"]:
        yield fine("access token", "the running gateway is connected with it")
    else:
        yield problem("access token", harmless(str(link["last_end"]) or "not connected yet"), "see the lines above")


def try_token(settings: Settings, token: str) -> Iterator[Finding]:
    """A session with it, for a moment; never beside a running gateway with the same token."""
    yield from try_login(settings, Login.of(token))


def try_login(settings: Settings, login: Login) -> Iterator[Finding]:
    way = _way(_Place.of(settings))
    code = server_probe.connack(way, login)
    if code == 0:
        named = "it" if login.kind is Kind.TOKEN else f"the {login.kind.value}"
        yield fine("access token", f"the server takes {named}")
    elif code is None:
        yield _no_answer(settings, way)
    else:
        cause, remedy = refusal_text(code, login.kind), "copy the token from the device's page"
        if login.kind is not Kind.TOKEN:
            cause, _, remedy = cause.partition("; ")
        yield problem("access token", cause, "wait, and see the server's log" if code == UNAVAILABLE else remedy)


def _no_answer(settings: Settings, way: Way) -> Finding:
    who = server_probe.who_answers(way)
    if who == "MQTT":
        return problem("access token", "the server closes the connection on it", "see the server's log")
    if who:
        return _stranger(settings, who)
    text = f"the server says nothing to a login: is there MQTT on port {settings.tb_port}?"
    return problem("access token", text, "TB_PORT has to be the server's MQTT port; see the server's log")
