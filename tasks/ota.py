"""What the queue runs for updates of the controller: one trigger, found again by every sweep and every connect."""

from tasks.lanes import Lane
from tasks.queue import huey, task
from teg.domain.backoff import Backoff

#: The update plans its own attempts and keeps their times; this only asks again whether one is due.
ASK_AGAIN = Backoff(first_s=5, cap_s=60)


@task(name="advance_update", lane=Lane.OTA, retry=ASK_AGAIN)
def advance_update() -> None:
    """Bring the controller to the wanted version: minutes of fetching, building and trial, on a lane of their own."""
    huey.services.ota.advance()
