"""The software update for the status page, from its persisted records."""

from typing import Any

from teg.domain.ota.job import SW_STATES, Job
from teg.domain.ota.store import JOB_KEY, PREVIOUS_KEY, SETTLED_KEY, WANTED_KEY
from teg.domain.ports import State


def update_summary(state: State) -> dict[str, Any]:
    """`job` is the update in progress, None while there is none; `failed`: the last one did not come to be.

    Raises:
        Unavailable: the records cannot be read now.
    """
    wanted = (state.get(WANTED_KEY) or {}).get("attributes") or {}
    return {
        "wanted": str(wanted.get("version") or ""),
        "job": _job(state.get(JOB_KEY)),
        "failed": bool((state.get(SETTLED_KEY) or {}).get("failed")),
        "previous": state.get(PREVIOUS_KEY) or "",
    }


def _job(stored: Any) -> dict[str, Any] | None:
    if stored is None:
        return None
    try:
        job = Job.parse(stored)
    except (TypeError, ValueError, KeyError, AttributeError):  # of another version of the gateway: it begins anew
        return {"version": "", "phase": "unknown", "state": "", "attempt": 0, "reason": ""}
    told = {"phase": job.phase.value, "state": SW_STATES[job.phase].value}
    return {"version": job.version, **told, "attempt": job.attempt, "reason": job.reason}
