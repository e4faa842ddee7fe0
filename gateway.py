"""The composition root: what is built from what, opened before the first worker and closed in reverse after the last.

Start the gateway with `huey_consumer gateway.huey`. Nothing imports this module but the consumer and the console. The
builders, each for one side of the gateway, stand in `teg/wiring/`.
"""

import teg.wiring.early_stop
import teg.wiring.exit_status  # noqa: F401 - also of a start that is refused

# isort: split

import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from tasks import periodic
from tasks.queue import huey as huey
from tasks.services import Services
from tasks.telemetry import records_stored
from teg.adapters import c_heap
from teg.adapters.clock import SystemClock
from teg.adapters.service_manager import ServiceManager
from teg.domain.errors import Refused, Unavailable
from teg.domain.telemetry.reporting import Auxiliary
from teg.domain.telemetry.waiting_report import WaitingReport
from teg.settings import InvalidSettings, Settings, environment_variable
from teg.wiring.calls import build_operator_side, build_synchroniser, recover_from_last_life
from teg.wiring.controller import build_controller_side
from teg.wiring.logs import build_log_level, install_log_output
from teg.wiring.producers import running_producers
from teg.wiring.server import build_recorder, build_server_side, build_storage_proof
from teg.wiring.storage import build_legacy_import, build_retention, open_storage

logger = logging.getLogger("gateway")
service = ServiceManager(environment_variable("NOTIFY_SOCKET"))


@contextmanager
def lifespan(settings: Settings) -> Iterator[Services]:
    """Open everything, yield the services, and close in reverse; only wrong configuration ends the start (status 1).

    Each line needs only what stands above it, and is closed before that.
    """
    c_heap.keep_small()
    with ExitStack() as stack:
        clock, stopping = SystemClock(), threading.Event()
        try:
            output = install_log_output(settings, stack)
            log_level = build_log_level(settings, output, clock)
            storage = open_storage(settings, stack, clock, huey.liveness)
            server = build_server_side(settings, output, storage, clock)
            controller = build_controller_side(settings, stack, storage, server, clock, stopping)
            operator = build_operator_side(settings, output, log_level, storage, server, controller, clock, stopping)
        except (InvalidSettings, Refused) as problem:
            raise SystemExit(str(problem)) from problem
        recorder = build_recorder(storage, server, records_stored)
        services = Services(
            session=server.session,
            recorder=recorder,
            publisher=server.publisher,
            reporter=server.reporter,
            storage_proof=build_storage_proof(storage, server, clock, stopping),
            auxiliary=Auxiliary(
                server.session,
                controller.supervisor,
                storage.inbox,
                clock,
                WaitingReport(storage.maintenance.counts),
                settings.auxiliary_s,
            ),
            log_lines=server.log_lines,
            synchroniser=build_synchroniser(storage, server, controller, operator, clock),
            link=server.link,
            flash=server.flash,
            storage=storage.keeper,
            retention=build_retention(settings, storage, clock),
            legacy_import=build_legacy_import(settings, storage),
            supervisor=controller.supervisor,
            files=operator.files,
            calls=operator.calls,
            ota=controller.updates,
            log_level=log_level,
            stopping=stopping,
        )
        storage.keeper.when_open(lambda: recover_from_last_life(operator))
        with huey.serving(services):
            with running_producers(settings, storage, recorder, server, controller, operator, service.alive):
                service.ready()
                where = (settings.tb_host, settings.tb_port, settings.data_path)
                logger.info("gateway started: server %s:%d, data in %s", *where)
                yield services
                service.stopping()
            logger.info("gateway stopped")
            save_what_waits(services)


def save_what_waits(services: Services) -> None:
    """Before the database closes: the last log lines and the journal of the quick calls."""
    for save in (services.log_lines.store, services.calls.tend, services.link.save):
        with suppress(Unavailable):
            save()


huey.lifespan = lifespan
huey.timetable = periodic.TIMETABLE
