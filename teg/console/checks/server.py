"""The way to the server, step by step; each step is only tried when the one before it worked."""

import functools
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from teg.adapters import server_probe, tls
from teg.adapters.token_file import AccessTokenFile
from teg.console.checks.finding import Finding, Level, Site, fine, problem, skipped, warning
from teg.console.wording import age, harmless
from teg.domain.errors import Refused, Unavailable
from teg.domain.server.connection_faults import explained
from teg.domain.server.reconnect import REFUSALS
from teg.settings import Settings

SOON_DAYS = 21
#: The CONNACK that is not about the credentials.
UNAVAILABLE = 3


class _Way(NamedTuple):
    """The settings that lead to the server."""

    tb_host: str
    tb_port: int
    tb_tls: bool
    ca_cert: Path | None

    @classmethod
    def of(cls, settings: Settings) -> "_Way":
        return cls(settings.tb_host, settings.tb_port, settings.tb_tls, settings.ca_cert)


def check_way(site: Site) -> Iterator[Finding]:
    """Name, port, TLS, certificate: five lines whatever happens."""
    yield from _walked(_Way.of(site.settings))


def way_is_open(settings: Settings) -> bool:
    return all(found.level is not Level.PROBLEM for found in _walked(_Way.of(settings)))


@functools.lru_cache(
    maxsize=1
)  # asked for by the way and by the token; a server that is silent costs seconds each time
def _walked(settings: _Way) -> tuple[Finding, ...]:
    steps = [_name, _port, _encryption]
    found: list[Finding] = []
    for number, step in enumerate(steps):
        found += step(settings)
        if any(each.level is Level.PROBLEM for each in found):
            found += [skipped(f"server {later.__name__.strip('_')}", "not tried") for later in steps[number + 1 :]]
            break
    return tuple(found)


def _name(settings: _Way) -> Iterator[Finding]:
    try:
        found = server_probe.addresses(settings.tb_host)
    except Unavailable as reason:
        remedy = "check TB_HOST, the network and the name server (resolvectl status)"
        yield problem("server name", f"'{settings.tb_host}' cannot be resolved: {reason}", remedy)
    else:
        yield fine("server name", f"{settings.tb_host} is {', '.join(found[:3])}")


def _port(settings: _Way) -> Iterator[Finding]:
    where = f"{settings.tb_host}:{settings.tb_port}"
    try:
        took_ms = server_probe.connect_ms(settings.tb_host, settings.tb_port)
    except Unavailable as reason:
        remedy = "check TB_PORT (8883 with TLS, 1883 without), firewalls, and that the server runs"
        yield problem("server port", f"{where} cannot be reached: {reason}", remedy)
    else:
        yield fine("server port", f"{where} answers in {took_ms:.0f} ms")


def _encryption(settings: _Way) -> Iterator[Finding]:
    if not settings.tb_tls:
        yield from _plain(settings)
        return
    try:
        context = tls.client_context(settings.ca_cert)
    except Refused as reason:
        yield problem("server encryption", harmless(str(reason)), "name the PEM file of the authority's certificate")
        return
    try:
        found = server_probe.certificate(settings.tb_host, settings.tb_port, context)
    except (Refused, Unavailable) as reason:
        yield _no_tls(settings, str(reason))
        return
    yield fine("server encryption", f"{found.protocol}, the certificate is good")
    if found.days_left < SOON_DAYS:
        text = f"the server's certificate expires in {age(found.days_left * 86_400)}"
        yield warning("certificate expiry", text, "renew it on the server")
    else:
        yield fine("certificate expiry", f"in {found.days_left:.0f} days")


def _no_tls(settings: _Way, said: str) -> Finding:
    who = "" if "CERTIFICATE_VERIFY_FAILED" in said else server_probe.who_answers(settings.tb_host, settings.tb_port)
    if who == "MQTT":
        text = f"port {settings.tb_port} speaks plain MQTT, and TB_TLS is on"
        return problem("server encryption", text, "use the TLS port (usually 8883), or TB_TLS=off on a trusted network")
    if who:
        return _stranger(settings, who)
    meaning, _, _ = explained(said).partition(" (")
    cause, _, remedy = meaning.partition(": ")
    return problem("server encryption", harmless(cause if remedy else said), remedy or "see the server's TLS settings")


def _stranger(settings: _Way | Settings, who: str) -> Finding:
    """Somebody answers there, and it is no MQTT server."""
    if who == "HTTP":
        text = f"port {settings.tb_port} answers as a web server: a portal that wants a login, or a wrong TB_PORT"
        remedy = "log in to the network, or ask for a way through its proxy; TB_PORT is usually 8883, 1883 without TLS"
        return problem("server encryption", text, remedy)
    text = f"port {settings.tb_port} says '{harmless(who, 60)}', which is no MQTT"
    return problem(
        "server encryption", text, "TB_PORT has to be the server's MQTT port: usually 8883, 1883 without TLS"
    )


def _plain(settings: _Way) -> Iterator[Finding]:
    if server_probe.speaks_tls(settings.tb_host, settings.tb_port):
        text = f"port {settings.tb_port} speaks TLS, and TB_TLS is off"
        yield problem("server encryption", text, "set TB_TLS=on (or leave it out)")
    elif (who := server_probe.who_answers(settings.tb_host, settings.tb_port)) not in ("MQTT", ""):
        yield _stranger(settings, who)
    else:
        text = "none: the token and all data can be read on the way"
        yield warning("server encryption", text, "set TB_TLS=on and use the TLS port, unless the network is trusted")
    yield skipped("certificate expiry", "no TLS")


def check_token(site: Site) -> Iterator[Finding]:
    """Whether there is one, and whether the server takes it; beside a running gateway that one's word counts."""
    settings = site.settings
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
    context = tls.client_context(settings.ca_cert) if settings.tb_tls else None
    code = server_probe.connack(settings.tb_host, settings.tb_port, context, token)
    if code == 0:
        yield fine("access token", "the server takes it")
    elif code is None:
        yield _no_answer(settings, context)
    else:
        text = REFUSALS.get(code, f"the server refused it (CONNACK {code})")
        remedy = "wait, and see the server's log" if code == UNAVAILABLE else "copy the token from the device's page"
        yield problem("access token", text, remedy)


def _no_answer(settings: Settings, context: ssl.SSLContext | None) -> Finding:
    who = server_probe.who_answers(settings.tb_host, settings.tb_port, context)
    if who == "MQTT":
        return problem("access token", "the server closes the connection on it", "see the server's log")
    if who:
        return _stranger(settings, who)
    text = f"the server says nothing to a login: is there MQTT on port {settings.tb_port}?"
    return problem("access token", text, "TB_PORT has to be the server's MQTT port; see the server's log")
