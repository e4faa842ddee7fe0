"""The way to the server, step by step; each step is only tried when the one before it worked."""

from collections.abc import Iterator

from teg.adapters import server_probe, tls
from teg.adapters.token_file import AccessTokenFile
from teg.console.checks.finding import Finding, Site, fine, problem, skipped, warning
from teg.console.wording import age, harmless
from teg.domain.errors import Refused, Unavailable
from teg.domain.server.connection_faults import explained
from teg.domain.server.reconnect import REFUSALS
from teg.settings import Settings

SOON_DAYS = 21


def check_way(site: Site) -> Iterator[Finding]:
    """Name, port, TLS, certificate: five lines whatever happens."""
    settings = site.settings
    steps = [_name, _port, _encryption]
    for number, step in enumerate(steps):
        findings = list(step(settings))
        yield from findings
        if any(found.level.value == 0 for found in findings):
            yield from (skipped(f"server {later.__name__.strip('_')}", "not tried") for later in steps[number + 1 :])
            return


def way_is_open(settings: Settings) -> bool:
    return all(found.level.value for step in (_name, _port, _encryption) for found in step(settings))


def _name(settings: Settings) -> Iterator[Finding]:
    try:
        found = server_probe.addresses(settings.tb_host)
    except Unavailable as reason:
        remedy = "check TB_HOST, the network and the name server (resolvectl status)"
        yield problem("server name", f"'{settings.tb_host}' cannot be resolved: {reason}", remedy)
    else:
        yield fine("server name", f"{settings.tb_host} is {', '.join(found[:3])}")


def _port(settings: Settings) -> Iterator[Finding]:
    where = f"{settings.tb_host}:{settings.tb_port}"
    try:
        took_ms = server_probe.connect_ms(settings.tb_host, settings.tb_port)
    except Unavailable as reason:
        remedy = "check TB_PORT (8883 with TLS, 1883 without), firewalls, and that the server runs"
        yield problem("server port", f"{where} cannot be reached: {reason}", remedy)
    else:
        yield fine("server port", f"{where} answers in {took_ms:.0f} ms")


def _encryption(settings: Settings) -> Iterator[Finding]:
    if not settings.tb_tls:
        yield from _plain(settings)
        return
    try:
        found = server_probe.certificate(settings.tb_host, settings.tb_port, tls.client_context(settings.ca_cert))
    except (Refused, Unavailable) as reason:
        yield _no_tls(settings, str(reason))
        return
    yield fine("server encryption", f"{found.protocol}, the certificate is good")
    if found.days_left < SOON_DAYS:
        text = f"the server's certificate expires in {age(found.days_left * 86_400)}"
        yield warning("certificate expiry", text, "renew it on the server")
    else:
        yield fine("certificate expiry", f"in {found.days_left:.0f} days")


def _no_tls(settings: Settings, said: str) -> Finding:
    if "CERTIFICATE_VERIFY_FAILED" not in said and _answers_plainly(settings):
        text = f"port {settings.tb_port} speaks plain MQTT, and TB_TLS is on"
        return problem("server encryption", text, "use the TLS port (usually 8883), or TB_TLS=off on a trusted network")
    meaning, _, _ = explained(said).partition(" (")
    cause, _, remedy = meaning.partition(": ")
    return problem("server encryption", harmless(cause if remedy else said), remedy or "see the server's TLS settings")


def _answers_plainly(settings: Settings) -> bool:
    return server_probe.connack(settings.tb_host, settings.tb_port, None, None) is not None


def _plain(settings: Settings) -> Iterator[Finding]:
    if server_probe.speaks_tls(settings.tb_host, settings.tb_port):
        text = f"port {settings.tb_port} speaks TLS, and TB_TLS is off"
        yield problem("server encryption", text, "set TB_TLS=on (or leave it out)")
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
        yield from _no_token(settings)
    elif site.gateway is not None:
        yield from _session(site.gateway["connection"])
    elif way_is_open(settings):
        yield from try_token(settings, token)
    else:
        yield skipped("access token", "not tried: the server cannot be reached")


def _no_token(settings: Settings) -> Iterator[Finding]:
    path = settings.access_token_path
    if settings.provision_key and settings.provision_secret:
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
        yield problem("access token", "the server closed the connection without an answer", "see the server's log")
    else:
        text = REFUSALS.get(code, f"the server refused it (CONNACK {code})")
        yield problem("access token", text, "copy the token from the device's page in ThingsBoard")
