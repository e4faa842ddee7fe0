"""What the queue runs for attributes: hints become questions, answers become wanted states."""

from tasks.files import reconcile_files
from tasks.lanes import Lane
from tasks.queue import huey, task
from teg.domain.backoff import Backoff
from teg.domain.server.attributes import Subject, subjects_of

RETRY = Backoff(first_s=2.0, cap_s=120.0)


@task(name="handle_attribute_push", lane=Lane.WORK, expires_s=300)
def handle_attribute_push(changed: list[str], deleted: list[str]) -> None:
    """Something was changed or deleted on the server: read the subjects it is about again."""
    subjects = subjects_of([*changed, *deleted])
    if Subject.SOFTWARE in subjects:
        try:
            huey.services.ota.pushed([*changed, *deleted])
        finally:
            read_software()
    if Subject.FILES in subjects:
        reconcile_files()


@task(name="synchronise", lane=Lane.WORK, expires_s=300)
def synchronise() -> None:
    """A connection was made: everything is read and told anew; the limits first, all else waits for them."""
    try:
        huey.services.synchroniser.read_limits()
    finally:
        publish_attributes()
        compare_attributes()
        read_software()
        reconcile_files()
        huey.services.synchroniser.tell_system()


@task(name="read_software", lane=Lane.WORK, retry=RETRY)
def read_software() -> None:
    huey.services.synchroniser.read_software()


@task(name="read_limits", lane=Lane.WORK, expires_s=60)
def read_limits() -> None:
    """No retry: a server that does not answer this once does not know it."""
    huey.services.synchroniser.read_limits()


@task(name="compare_attributes", lane=Lane.WORK, expires_s=300)
def compare_attributes() -> None:
    """Tell again what the server shows otherwise than it was told."""
    huey.services.reporter.tell_what_differs()


@task(name="publish_attributes", lane=Lane.WORK, retry=RETRY)
def publish_attributes() -> None:
    """Send client attributes the server has not acknowledged yet."""
    huey.services.reporter.publish_attributes()
