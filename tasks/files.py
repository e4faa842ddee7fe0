"""What the queue runs for remote files: read the wanted state, compare the disk with it, restart the controller.

All three are triggers without arguments and may run twice; the wanted state, trials and due restarts are in `State`.
"""

from tasks.lanes import Lane
from tasks.queue import huey, task
from teg.domain.backoff import Backoff

ASK_AGAIN = Backoff(first_s=1, cap_s=60)
RESTART_AGAIN = Backoff(first_s=5, cap_s=300)


@task(name="reconcile_files", lane=Lane.WORK, retry=ASK_AGAIN)
def reconcile_files() -> None:
    """On every connect and on every push of FILES or FILE_CONTENT_*: the push is a hint, the answer is the truth."""
    files = huey.services.files
    try:
        files.reconcile()
    finally:
        _follow_up()


@task(name="check_files", lane=Lane.WORK)
def check_files() -> None:
    """Every 30 s, and sooner while something waits; asks the server again if an earlier answer never came."""
    files = huey.services.files
    try:
        files.check()
    finally:
        _follow_up()
    if files.stale:
        reconcile_files()


@task(name="restart_controller_for_files", lane=Lane.SUPERVISION, retry=RESTART_AGAIN)
def restart_controller_for_files() -> None:
    """On the lane of the container engine: stopping a controller may take a minute."""
    huey.services.files.restart_controller()


def _follow_up() -> None:
    if huey.services.files.restart_due:
        restart_controller_for_files()
