"""What the queue runs for remote files."""

from domain.backoff import Backoff
from tasks.lanes import Lane
from tasks.queue import huey, task

RETRY = Backoff(first_s=2.0, cap_s=300.0)


@task(name="reconcile_files", lane=Lane.WORK, retry=RETRY)
def reconcile_files() -> None:
    """Make the files what the server wants, and tell it how they are."""
    huey.services.files.reconcile()
