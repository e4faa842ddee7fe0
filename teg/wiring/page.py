"""The status page, where TEG_CONSOLE asks for one. Imported only then."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from tasks.lanes import WORKERS, Lane
from tasks.queue import huey
from tasks.telemetry import records_stored
from teg.adapters.gateway_db.newest import NewestRecords
from teg.adapters.page_listener import PageListener
from teg.console.page.application import StatusPage
from teg.console.page.guards import Names
from teg.console.page.looking import Looking
from teg.console.page.picture import PageSources
from teg.console.page.sessions import Sessions
from teg.console.page.tails import Tails
from teg.domain.files.summary import PREFIXES, files_summary
from teg.domain.ota.summary import update_summary
from teg.domain.rpc.status import local_status
from teg.settings import Settings
from teg.wiring.calls import OperatorSide
from teg.wiring.server import ServerSide
from teg.wiring.storage import Storage


@contextmanager
def running_page(settings: Settings, storage: Storage, server: ServerSide, operator: OperatorSide) -> Iterator[None]:
    """Listening last and first no more: whoever is served is served by what still stands."""
    sources = page_sources(storage, server, operator)
    looking = Looking(sources)
    page = StatusPage(
        sources=sources,
        looking=looking,
        tails=Tails({"gateway": operator.status.log.recent, "controller": operator.status.controller.logs}),
        call=lambda method, params: _call(operator, method, params),
        sessions=Sessions(settings.console_password),
        names=Names(settings.console, settings.console_names),
    )
    listener = PageListener(settings.console, page)
    with ExitStack() as stack:
        for part in (looking, listener):
            stack.callback(part.stop)
            part.start()
        yield


def page_sources(storage: Storage, server: ServerSide, operator: OperatorSide) -> PageSources:
    return PageSources(
        report=lambda: local_status(operator.status, storage.inbox),
        tally=storage.maintenance.tally,
        published=server.publisher.latency,
        published_bytes=lambda: server.publisher.acknowledged_bytes,
        newest=NewestRecords(storage.keeper.database).recent,
        update=lambda: update_summary(storage.state),
        files=lambda: files_summary(_told_of_files(storage)),
        calls=operator.journal.recent,
        lanes=lanes,
        dead_letters=storage.maintenance.dead_letters,
    )


def _told_of_files(storage: Storage) -> dict[str, bytes]:
    return dict(pair for prefix in PREFIXES for pair in storage.client_attributes.beginning_with(prefix))


def _call(operator: OperatorSide, method: str, params: Any) -> Any:
    """What a call put on its way goes at once."""
    answer = operator.calls.call_here(method, params)
    records_stored()
    return answer


def lanes() -> dict[str, Any]:
    """By lane: workers, and tasks that wait."""
    waiting = huey.waiting()
    return {lane.value: {"workers": WORKERS[lane], "waiting": waiting[lane]} for lane in Lane}
