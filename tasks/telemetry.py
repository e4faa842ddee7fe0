"""What the queue runs for measurements: archive them, publish them."""

from tasks.lanes import Lane
from tasks.queue import huey, task
from teg.domain.backoff import Backoff

#: Between tries while the inbox or the archive is locked, or the session just ended; a connect does not wait for it.
RETRY = Backoff(first_s=1.0, cap_s=60.0)


@task(name="archive_records", lane=Lane.TELEMETRY, retry=RETRY)
def archive_records() -> None:
    """Move what is in the controller's inbox into the archive."""
    huey.services.recorder.run(huey.stop_wanted)


@task(name="publish_records", lane=Lane.TELEMETRY, retry=RETRY)
def publish_records() -> None:
    """Send what the server has not acknowledged yet."""
    huey.services.publisher.run(huey.stop_wanted)


@task(name="prove_stored", lane=Lane.WORK, expires_s=30)
def prove_stored() -> None:
    """Find out what of the acknowledged the server has stored."""
    huey.services.storage_proof.advance()


def records_waiting() -> None:
    """There are rows in the inbox: notify the running recorder, or start one."""
    if not huey.services.recorder.signal.notify():
        archive_records()


def records_stored() -> None:
    """There is something in the outbox: notify the running publisher, or start one if it could send."""
    services = huey.services
    publisher = services.publisher
    if not publisher.signal.notify() and services.session.connected and not publisher.postponed:
        publish_records()
