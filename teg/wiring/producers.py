"""What makes work appear: the session's listener, the inbox feed, the watches; running while the services are open."""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from producers.controller_feed import ControllerFeed
from producers.controller_watch import ControllerWatch
from producers.network_watch import NetworkWatch
from producers.self_watch import SelfWatch
from tasks.queue import huey
from tasks.supervision import supervise_controller
from tasks.telemetry import records_stored, records_waiting
from teg.adapters.inbox.changes import InboxChanges
from teg.adapters.network_changes import NetworkChanges
from teg.adapters.own_process import OwnProcess, thread_state
from teg.adapters.status_socket import Answer, Say, StatusSocket
from teg.domain.errors import Unavailable
from teg.domain.rpc.local_orders import obey
from teg.domain.rpc.status import local_status
from teg.domain.supervision.supervisor import Supervisor
from teg.domain.telemetry.ingest import Recorder
from teg.settings import Settings
from teg.wiring.calls import OperatorSide
from teg.wiring.controller import ControllerSide
from teg.wiring.server import ServerSide
from teg.wiring.storage import Storage

logger = logging.getLogger("gateway")


def _answers(storage: Storage, operator: OperatorSide) -> Answer:
    """What the console on this machine asks for: how it is, or something done with the archive."""

    def answer(request: bytes, say: Say) -> bytes:
        if not request:
            return local_status(operator.status, storage.inbox)
        done = obey(operator.calls, request, say)
        records_stored()
        return done

    return answer


@contextmanager
def running_producers(
    settings: Settings,
    storage: Storage,
    recorder: Recorder,
    server: ServerSide,
    controller: ControllerSide,
    operator: OperatorSide,
    alive: Callable[[], None],
) -> Iterator[None]:
    """The session is started first and stopped last: the others may still want to say something."""
    producers: list[ControllerFeed | ControllerWatch | NetworkWatch | SelfWatch] = [
        SelfWatch(huey.liveness, thread_state, OwnProcess(), alive),
        ControllerFeed(InboxChanges(settings.inbox_path), recorder, records_waiting, huey.liveness),
    ]
    try:
        producers.append(NetworkWatch(NetworkChanges(), server.session.network_returned))
    except Unavailable as reason:
        logger.info("%s; the session waits for its next try when the network comes back", reason)
    supervisor = controller.supervisor
    if controller.runtime is not None and isinstance(supervisor, Supervisor):
        watch = ControllerWatch(controller.runtime, supervisor.next_check, supervise_controller)
        producers.append(watch)
    with ExitStack() as stack:
        status_socket = StatusSocket(settings.data_path, _answers(storage, operator))
        stack.callback(status_socket.stop)
        status_socket.start()
        stack.callback(server.session.stop)
        server.session.start()
        for producer in producers:
            stack.callback(producer.stop)
            producer.start()
        if settings.console:
            from teg.wiring.page import running_page  # where there is no page, nothing of it is loaded

            stack.enter_context(running_page(settings, storage, server, operator))
        yield
