"""The timetable: everything that happens by the clock, on one screen.

By monotonic time since the start, each once at the start and then every interval; every task here is harmless right
after boot and harmless twice. They run from memory: at rest the gateway writes nothing.
"""

from tasks.attributes import publish_attributes, read_limits, read_software
from tasks.files import check_files, reconcile_files
from tasks.lanes import Lane
from tasks.ota import advance_update
from tasks.queue import huey, task
from tasks.rpc import tend_rpc
from tasks.telemetry import archive_records, prove_stored, publish_records
from tasks.timetable import Every
from teg.domain.backoff import Backoff

MINUTE_S = 60
HOUR_S = 3600


@task(name="send_auxiliary_telemetry", lane=Lane.WORK, expires_s=15)
def send_auxiliary_telemetry() -> None:
    huey.services.auxiliary.send()


@task(name="store_log_lines", lane=Lane.WORK, expires_s=30)
def store_log_lines() -> None:
    """Put the gateway's own log lines on their way."""
    huey.services.log_lines.store()


@task(name="look_at_budgets", lane=Lane.WORK, expires_s=60)
def look_at_budgets() -> None:
    """What the link carries and the card is written, and what the budgets for them slow down."""
    huey.services.flash.look()
    huey.services.link.look()


@task(name="sweep", lane=Lane.WORK, expires_s=50)
def sweep() -> None:
    """Find unfinished work whose trigger was lost: a deleted queue, a killed process, a missed write."""
    huey.trigger(archive_records)
    if huey.services.session.connected:
        huey.trigger(publish_records)
        huey.trigger(publish_attributes)
    if huey.services.flash.due or huey.services.link.due:
        huey.trigger(look_at_budgets)


@task(name="read_wanted_state", lane=Lane.WORK, expires_s=300)
def read_wanted_state() -> None:
    """Read the wanted software and files again, in case a push was lost while the connection held."""
    if huey.services.session.connected:
        huey.trigger(read_limits)
        huey.trigger(read_software)
        huey.trigger(reconcile_files)


@task(name="tidy_archive", lane=Lane.WORK, expires_s=300)
def tidy_archive() -> None:
    """Keep the archive within its quota and age, and the database file small."""
    huey.services.retention.run()


@task(name="tend_storage", lane=Lane.WORK, expires_s=15)
def tend_storage() -> None:
    """Make sure that gateway.db is the file on the disk and as we wrote it, and note how far it got."""
    huey.services.storage.tend()


@task(name="check_storage", lane=Lane.COMMAND, expires_s=60)
def check_storage() -> None:
    """Look through a large gateway.db once after the start."""
    huey.services.storage.check(huey.stop_wanted)


@task(name="salvage_storage", lane=Lane.COMMAND, retry=Backoff(first_s=5.0, cap_s=300.0))
def salvage_storage() -> None:
    """Bring back what can be read of a database that was moved aside."""
    services = huey.services
    if told := services.storage.salvage(huey.stop_wanted):
        services.reporter.attributes({"salvage": "; ".join(told)[:1000]})
        publish_records()


@task(name="report_troubles", lane=Lane.WORK, expires_s=15)
def report_troubles() -> None:
    """Tell the server which tasks cannot do their work, when that has changed."""
    huey.troubles.tell(lambda troubles: huey.services.reporter.attributes({"troubles": troubles}))


@task(name="take_over_reference", lane=Lane.COMMAND, retry=Backoff(first_s=5.0, cap_s=300.0))
def take_over_reference() -> None:
    """Bring in what the reference gateway left behind; after the first time there is nothing."""
    huey.services.legacy_import.run()


TIMETABLE = (
    Every(5, store_log_lines, when=lambda: huey.services.log_lines.waiting),
    Every(5, tend_storage, when=lambda: huey.services.storage.care_due),
    Every(1, publish_records, when=lambda: huey.services.session.connected and huey.services.publisher.due),
    Every(1, check_files, when=lambda: huey.services.files.take_due()),
    Every(2, prove_stored, when=lambda: huey.services.storage_proof.due),
    Every(20, send_auxiliary_telemetry, when=lambda: huey.services.session.connected and huey.services.auxiliary.due),
    Every(MINUTE_S, sweep),
    Every(MINUTE_S, tend_rpc),
    Every(MINUTE_S, advance_update),
    Every(20, report_troubles, when=lambda: huey.troubles.untold),
    Every(20, check_storage, when=lambda: huey.services.storage.check_due),
    Every(20, salvage_storage, when=lambda: huey.services.storage.salvage_due),
    Every(10 * MINUTE_S, read_wanted_state),
    Every(10, tidy_archive, when=lambda: huey.services.retention.due),
    Every(HOUR_S, take_over_reference),
)
