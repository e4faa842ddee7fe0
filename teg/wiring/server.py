"""The session with the server, and what speaks through it: telemetry, reports, attributes."""

import logging
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from producers.mqtt_listener import MqttListener
from tasks.attributes import publish_attributes
from tasks.ota import advance_update
from tasks.queue import huey
from tasks.telemetry import records_stored
from teg.adapters import tls
from teg.adapters.bounded_mqtt_client import client_through
from teg.adapters.log_handlers import LogOutput
from teg.adapters.mqtt_provisioning import ProvisioningEndpoint
from teg.adapters.mqtt_session import MqttSession, MQTTv5, MQTTv311, Server
from teg.adapters.own_writes import OwnWrites
from teg.adapters.server_way import Way
from teg.adapters.token_file import AccessTokenFile
from teg.domain.flash_budget import FlashBudget
from teg.domain.ota import store
from teg.domain.ports import Clock
from teg.domain.server.attributes import ServerAttributes, remembered_limits
from teg.domain.server.link_budget import LinkBudget, LinkMeter
from teg.domain.server.login import Login
from teg.domain.server.own_credentials import OwnCredentials
from teg.domain.server.provisioning import Credentials, ProvisionKeys
from teg.domain.server.rate_limits import Pacer
from teg.domain.server.reconnect import ConnectionPolicy
from teg.domain.server.remembered_version import RememberedVersion
from teg.domain.telemetry.clock_steps import ClockSteps
from teg.domain.telemetry.compact import compact
from teg.domain.telemetry.gathering import Gathering
from teg.domain.telemetry.ingest import REMOVE_AFTER_S, CommitPace, Recorder
from teg.domain.telemetry.publisher import Publisher
from teg.domain.telemetry.report_rules import parse_report
from teg.domain.telemetry.reporting import LogLines, Reporter
from teg.domain.telemetry.scaling import Numbers
from teg.domain.telemetry.storage_proof import BYTES, FIRST_S, LONGEST_S, METERED_BYTES, METERED_S, StorageProof
from teg.domain.telemetry.thinning import Thinner
from teg.settings import Settings
from teg.wiring.storage import Storage

logger = logging.getLogger("gateway")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSide:
    """One `attributes` for all who ask: request ids must not collide."""

    session: MqttSession
    policy: ConnectionPolicy
    attributes: ServerAttributes
    publisher: Publisher
    reporter: Reporter
    log_lines: LogLines
    numbers: Numbers
    link: LinkBudget
    flash: FlashBudget


def build_server_side(settings: Settings, output: LogOutput, storage: Storage, clock: Clock) -> ServerSide:
    policy = ConnectionPolicy(now_s=clock.monotonic_s)
    pacer = Pacer()
    if (limits := remembered_limits(storage.state)) is not None:
        pacer.use(limits, clock.monotonic_s())
    meter = LinkMeter(clock)
    session = _session(settings, output, policy, pacer, clock, storage, meter)
    numbers = Numbers(settings.telemetry_scale)
    attributes = ServerAttributes(session, session.use_short_topic if settings.short_topic else lambda _: None)
    told = (records_stored, publish_attributes)
    reporter = Reporter(storage.records, storage.client_attributes, session, clock, *told, pacer, source=attributes)

    def moved(records: int, shift_ms: int) -> None:
        reporter.telemetry({"clock_moved_records": records, "clock_moved_by_ms": shift_ms})

    link = LinkBudget(
        meter, storage.state, clock, settings.link_mb_per_month, settings.link_batch_s, reporter.attributes
    )
    steps = ClockSteps(storage.clock_anchors, clock, moved)
    publisher = Publisher(
        storage.records,
        session,
        clock,
        pacer=pacer,
        scaled=_on_the_wire(numbers, link),
        clock_steps=steps,
        marks=storage.marks,
        thinner=Thinner(parse_report(settings.report), storage.thinned, clock, numbers.scale),
        gathering=Gathering(lambda: link.gathering_s),
    )
    log_lines = LogLines(storage.records, clock, records_stored)
    output.forward_to(log_lines.add)
    return ServerSide(
        session=session,
        policy=policy,
        attributes=attributes,
        publisher=publisher,
        reporter=reporter,
        log_lines=log_lines,
        numbers=numbers,
        link=link,
        flash=_flash_budget(settings, clock),
    )


def _on_the_wire(numbers: Numbers, link: LinkBudget) -> Callable[[bytes], bytes] | None:
    """What is done to each record on its way; nothing, mostly."""
    scaling = numbers.scaling
    if not link.metered:
        return scaling
    return compact if scaling is None else lambda record: compact(scaling(record))


def _flash_budget(settings: Settings, clock: Clock) -> FlashBudget:
    def disk_bytes() -> int:
        return shutil.disk_usage(settings.data_path).total

    return FlashBudget(OwnWrites().written_bytes, disk_bytes, clock, settings.flash_mb_per_day)


def build_recorder(storage: Storage, server: ServerSide, stored: Callable[[], None]) -> Recorder:
    return Recorder(
        storage.inbox,
        storage.records,
        stored,
        notice=server.numbers.notice,
        pace=CommitPace(lambda: server.flash.commit_s),
        remove_after_s=REMOVE_AFTER_S,
    )


def build_storage_proof(storage: Storage, server: ServerSide, clock: Clock, stopping: threading.Event) -> StorageProof:
    """A server that was set back is told everything again that the gateway tells of itself."""

    def tell_again() -> None:
        storage.client_attributes.tell_again()
        publish_attributes()
        store.tell_again(storage.state)
        advance_update()

    publisher = server.publisher
    return StorageProof(
        store=storage.unproven,
        session=server.session,
        attributes=server.attributes,
        publisher=publisher,
        clock=clock,
        pause=stopping.wait,
        send_again=publisher.read_again,
        server_was_set_back=tell_again,
        counts_messages=publisher.pacer.counts_messages,
        gaps_s=METERED_S if server.link.metered else (FIRST_S, LONGEST_S),
        every_bytes=METERED_BYTES if server.link.metered else BYTES,
    )


def delivery_summary(storage: Storage, server: ServerSide) -> Callable[[], Mapping[str, Any]]:
    """For `status`."""

    def summary() -> Mapping[str, Any]:
        proof = storage.unproven.state()
        return {
            **server.publisher.summary(),
            "server_gives_proofs": proof.keeps,
            "may_be_missing_on_the_server": proof.missing and proof.missing.as_dict(),
            "second_user_of_our_token": server.session.second_user,
            "link": server.link.summary(),
            "flash": server.flash.summary(),
        }

    return summary


def _session(
    settings: Settings,
    output: LogOutput,
    policy: ConnectionPolicy,
    pacer: Pacer,
    clock: Clock,
    storage: Storage,
    meter: LinkMeter,
) -> MqttSession:
    server = _server(settings)
    for secret in settings.connection.secrets:
        output.add_secret(secret)
    token = _login(settings, server, output, storage)

    listener = MqttListener()
    return MqttSession(
        server,
        token,
        listener.received,
        listener.connected,
        policy,
        pacer=pacer,
        now_s=clock.monotonic_s,
        keepalive_s=settings.keepalive_s,
        liveness=huey.liveness,
        count_bytes=meter.add,
        version_memory=RememberedVersion(storage.state, f"{server.host}:{server.port}", clock.now_ms),
    )


def _server(settings: Settings) -> Server:
    context = tls.context_of(settings)
    if context is None:
        log = logger.warning
        if settings.connection.transport == "tcp":
            log("TB_TLS=off: the access token and all data go over the network in the clear")
        else:
            log("TB_TRANSPORT=ws: the access token and all data go over the network in the clear")
    versions = (MQTTv5, MQTTv311) if settings.tb_mqtt_version == "auto" else (MQTTv311,)
    return Server(settings.tb_host, settings.tb_port, context, client_through(Way.of(settings, context).open), versions)


def _login(
    settings: Settings, server: Server, output: LogOutput, storage: Storage
) -> Callable[[], str] | Callable[[], Login]:
    """As whom to connect: MQTT basic, a certificate, or the token of the token file or of provisioning."""
    keys, link = None, settings.connection
    if settings.provision_key and settings.provision_secret:
        keys = ProvisionKeys(settings.device_name, settings.provision_key, settings.provision_secret)
    ask = ProvisioningEndpoint(server.host, server.port, server.tls, client=server.client).ask
    if link.is_basic or link.client_cert:
        shown = None
        if server.tls and link.client_cert and link.client_key:
            shown = tls.ClientCertificate(server.tls, link.client_cert, link.client_key).presented
        place = f"{server.host}:{server.port}"
        return OwnCredentials(tls.login_of(link), shown, keys, ask, storage.state, place).login
    credentials = Credentials(AccessTokenFile(settings.access_token_path), keys, ask)

    def token() -> str:
        found = credentials.token()
        output.add_secret(found)
        return found

    return token
