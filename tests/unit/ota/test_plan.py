"""What follows from a situation, as a table, and what never may."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teg.domain.ota.assignment import Assignment, Source
from teg.domain.ota.job import UNTOUCHED, Job, Move, Phase, Situation, plan

V1, V2, V3 = (Assignment(version=version, title="ctl", source=Source.GIT) for version in ("v1", "v2", "v3"))
REST = Situation(serial=5, settled=5, target=V1, committed="v1")
ANEW = replace(REST, serial=6)


def job(phase: Phase, serial: int = 6, attempt: int = 1) -> Job:
    return Job(serial=serial, assignment=V2, phase=phase, previous="v1", attempt=attempt)


@pytest.mark.parametrize(
    ("situation", "move"),
    [
        (REST, Move.REST),
        (replace(REST, missing=True), Move.RESTORE),
        (replace(REST, missing=True, restore_due=False), Move.REST),
        (replace(REST, target=V2), Move.REST),  # failed before and not assigned anew
        (replace(ANEW, target=V2), Move.BEGIN),
        (replace(ANEW, target=V2, committed=None), Move.BEGIN),
        (ANEW, Move.REMEMBER),
        (replace(ANEW, missing=True), Move.BEGIN),
        (replace(ANEW, target=None), Move.RELEASE),
        (replace(ANEW, target=None, refusal="no"), Move.REFUSE),
        *((replace(ANEW, target=V2, job=job(phase)), Move.CONTINUE) for phase in Phase),
        *((replace(ANEW, target=V2, job=job(phase, 5)), Move.ADOPT) for phase in Phase),
        *((replace(ANEW, target=V3, job=job(phase, 5)), Move.CALL_OFF) for phase in UNTOUCHED),
        *((replace(ANEW, target=None, job=job(phase, 5)), Move.CALL_OFF) for phase in UNTOUCHED),
        *((replace(ANEW, target=None, refusal="no", job=job(phase, 5)), Move.CALL_OFF) for phase in UNTOUCHED),
        (replace(ANEW, target=None, job=job(Phase.REPLACING, 5, attempt=0)), Move.CALL_OFF),
        (replace(ANEW, target=V3, job=job(Phase.REPLACING, 5)), Move.CONTINUE),
        (replace(ANEW, target=V3, job=job(Phase.TRIAL, 5)), Move.CONTINUE),
        (replace(ANEW, target=None, job=job(Phase.TRIAL, 5)), Move.CONTINUE),
        (replace(ANEW, target=V1, job=job(Phase.TRIAL, 5)), Move.TURN_BACK),
        (replace(ANEW, target=V1, job=job(Phase.REPLACING, 5)), Move.TURN_BACK),
        (replace(ANEW, target=V1, job=job(Phase.COMMITTING, 5)), Move.CONTINUE),
        (replace(ANEW, target=V1, job=job(Phase.ROLLING_BACK, 5)), Move.CONTINUE),
        (replace(ANEW, target=V1, job=job(Phase.FAILING, 5)), Move.CONTINUE),
    ],
)
def test_moves(situation: Situation, move: Move) -> None:
    assert plan(situation) is move


SITUATIONS = st.builds(
    Situation,
    serial=st.integers(1, 3),
    settled=st.integers(0, 3),
    target=st.sampled_from([None, V1, V2, V3]),
    refusal=st.sampled_from(["", "no"]),
    job=st.none() | st.builds(job, st.sampled_from(Phase), st.integers(1, 3), st.integers(0, 3)),
    committed=st.sampled_from([None, "v1", "v2"]),
    missing=st.booleans(),
    restore_due=st.booleans(),
)


@given(SITUATIONS)
def test_a_touched_controller_is_never_left_alone(situation: Situation) -> None:
    move = plan(situation)
    if situation.job is not None and not situation.job.untouched:
        assert move in (Move.CONTINUE, Move.ADOPT, Move.TURN_BACK)


@given(SITUATIONS)
def test_nothing_begins_that_nobody_asked_for(situation: Situation) -> None:
    move = plan(situation)
    if move is Move.BEGIN:
        assert situation.target is not None and situation.job is None
        assert situation.serial != situation.settled
        assert situation.target.version != situation.committed or situation.missing
    if move is Move.RESTORE:
        assert situation.missing and situation.job is None
