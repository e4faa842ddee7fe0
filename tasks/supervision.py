"""What the queue runs for the controller: one turn of its supervision, and the restart that somebody asked for."""

from tasks.lanes import Lane
from tasks.queue import huey, task


@task(name="supervise_controller", lane=Lane.SUPERVISION)
def supervise_controller() -> None:
    """Look at the controller and start or restart it where that is due; harmless at any time."""
    huey.services.supervisor.supervise()
