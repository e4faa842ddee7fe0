"""How one update moves on: tables for each step, and properties over every way through them."""

from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from teg.domain.ota import job as jobs
from teg.domain.ota.assignment import Assignment, Source
from teg.domain.ota.job import MAX_ATTEMPTS, MAX_WAIT_MS, RETRY, SW_STATES, UNTOUCHED, Job, Phase, Trial

ASSIGNMENT = Assignment(version="v2", title="ctl", source=Source.GIT)
TRIAL = Trial(started_ms=1, started_s=2.0, boot_id="b", heartbeat_before_ms=None, keys_before=("a",), run_id="r")
TOUCHED = (Phase.REPLACING, Phase.TRIAL)
NOW_MS = 1_700_000_000_000


def a_job(phase: Phase = Phase.FETCHING, attempt: int = 1, previous: str = "v1") -> Job:
    return Job(serial=1, assignment=ASSIGNMENT, phase=phase, attempt=attempt, previous=previous)


def test_the_good_way() -> None:
    job, way = jobs.begin(1, ASSIGNMENT, "v1", kept_image=False), []
    while job.phase is not Phase.COMMITTING:
        way.append(job.phase)
        job = jobs.succeeded(jobs.attempted(job))
    assert way == [Phase.FETCHING, Phase.VERIFYING, Phase.INSTALLING, Phase.REPLACING, Phase.TRIAL]


def test_a_kept_image_begins_with_the_replacement() -> None:
    assert jobs.begin(1, ASSIGNMENT, "v1", kept_image=True).phase is Phase.REPLACING


@pytest.mark.parametrize("phase", UNTOUCHED)
def test_what_was_not_touched_needs_no_rollback(phase: Phase) -> None:
    assert jobs.failed(a_job(phase), "no", can_pass=False, now_ms=NOW_MS).phase is Phase.FAILING


def test_a_replacement_that_was_not_begun_touches_nothing() -> None:
    assert a_job(Phase.REPLACING, attempt=0).untouched
    assert not a_job(Phase.REPLACING, attempt=1).untouched


@pytest.mark.parametrize("phase", TOUCHED)
def test_what_was_touched_is_rolled_back(phase: Phase) -> None:
    assert jobs.failed(a_job(phase), "no", can_pass=False, now_ms=NOW_MS).phase is Phase.ROLLING_BACK
    assert jobs.ended(a_job(phase)).phase is Phase.ROLLING_BACK


@pytest.mark.parametrize("phase", [*UNTOUCHED, Phase.REPLACING])
def test_three_attempts_then_the_end(phase: Phase) -> None:
    job, attempts = a_job(phase, attempt=0), 0
    while job.phase is phase:
        job = jobs.failed(jobs.attempted(job), "transient", can_pass=True, now_ms=NOW_MS)
        attempts += 1
    assert attempts == MAX_ATTEMPTS
    assert job.phase is (Phase.ROLLING_BACK if phase is Phase.REPLACING else Phase.FAILING)
    assert job.reason == "given up after 3 attempts: transient"


def test_attempts_wait_longer_and_longer() -> None:
    waits = []
    for attempt in (1, 2):
        job = jobs.failed(a_job(attempt=attempt), "transient", can_pass=True, now_ms=NOW_MS)
        waits.append(jobs.wait_ms(job, NOW_MS))
    assert waits == [10_000, 30_000]
    assert jobs.wait_ms(jobs.attempted(job), NOW_MS) == 0


@pytest.mark.parametrize(
    ("passed_ms", "expected_ms"), [(0, 10_000), (9_999, 1), (10_000, 0), (-60_000, 70_000), (-MAX_WAIT_MS, 0)]
)
def test_a_wait_ends_in_time_whatever_the_clock_does(passed_ms: int, expected_ms: int) -> None:
    job = jobs.failed(a_job(), "transient", can_pass=True, now_ms=NOW_MS)
    assert jobs.wait_ms(job, NOW_MS + passed_ms) == expected_ms


def test_without_anything_to_fall_back_to_fetching_goes_on_for_ever_but_trials_do_not() -> None:
    assert not jobs.is_exhausted(a_job(Phase.FETCHING, attempt=99, previous=""))
    assert jobs.is_exhausted(a_job(Phase.REPLACING, attempt=MAX_ATTEMPTS, previous=""))
    waited = jobs.failed(a_job(attempt=99, previous=""), "transient", can_pass=True, now_ms=NOW_MS)
    assert jobs.wait_ms(waited, NOW_MS) == RETRY.cap_s * 1000


def test_a_trial_that_begins_again_keeps_its_count() -> None:
    job = jobs.succeeded(jobs.attempted(a_job(Phase.REPLACING, attempt=0)))
    assert (job.phase, job.attempt) == (Phase.TRIAL, 1)
    again = jobs.again(replace(job, trial=TRIAL))
    assert (again.phase, again.attempt) == (Phase.REPLACING, 1)
    assert again.trial is not None and again.trial.keys_before == ("a",)


@pytest.mark.parametrize(("held", "attempt"), [(100, 3), (99, 3), (101, 1)])
def test_only_a_download_that_grew_is_counted_anew(held: int, attempt: int) -> None:
    job = replace(a_job(attempt=2), held_bytes=100)
    assert jobs.attempted(job, held).attempt == attempt


def test_only_a_download_that_went_on_from_something_counts_as_resumed() -> None:
    begun = jobs.attempted(a_job(attempt=0), held_bytes=0)
    verifying = jobs.attempted(jobs.succeeded(begun), held_bytes=500)
    assert not begun.resumed and not verifying.resumed
    assert jobs.attempted(a_job(), held_bytes=1).resumed


def test_every_phase_has_something_to_say() -> None:
    assert set(SW_STATES) == set(Phase)


JOBS = st.builds(
    Job,
    serial=st.integers(0, 9),
    assignment=st.just(ASSIGNMENT),
    phase=st.sampled_from(Phase),
    previous=st.sampled_from(["", "v1"]),
    commit=st.sampled_from(["", "c" * 40]),
    attempt=st.integers(0, 5),
    retry_at_ms=st.integers(0, NOW_MS),
    held_bytes=st.integers(0, 9),
    resumed=st.booleans(),
    reason=st.text(max_size=5),
    trial=st.sampled_from([None, TRIAL]),
)


@given(JOBS)
def test_a_job_survives_being_stored(job: Job) -> None:
    assert Job.parse(orjson.loads(orjson.dumps(job.encode()))) == job


EVENTS = st.lists(st.sampled_from(["success", "transient", "refusal", "crash", "again", "end"]), max_size=40)


@given(events=EVENTS, kept=st.booleans(), previous=st.sampled_from(["", "v1"]))
def test_no_way_leads_to_a_commit_but_a_passed_trial(events: list[str], kept: bool, previous: str) -> None:
    job = jobs.begin(1, ASSIGNMENT, previous, kept)
    for event in events:
        before, job = job, _after(job, event)
        if job.phase is Phase.COMMITTING and before.phase is not Phase.COMMITTING:
            assert (before.phase, event) == (Phase.TRIAL, "success")
        if before.phase in TOUCHED and not before.untouched:
            assert job.phase in (*TOUCHED, Phase.COMMITTING, Phase.ROLLING_BACK)
        if before.phase is Phase.ROLLING_BACK:
            assert job.phase in (Phase.ROLLING_BACK, Phase.FAILING)


@given(events=EVENTS, kept=st.booleans())
def test_from_anywhere_bad_luck_alone_ends_within_a_few_steps(events: list[str], kept: bool) -> None:
    job = jobs.begin(1, ASSIGNMENT, "v1", kept)
    for event in events:
        job = _after(job, event)
    for _ in range(2 * MAX_ATTEMPTS + 2):
        if job.phase in (Phase.FAILING, Phase.COMMITTING):
            return
        job = _after(job, "success" if job.phase is Phase.ROLLING_BACK else "transient")
    raise AssertionError(f"still {job.phase} after many failures")


def _after(job: Job, event: str) -> Job:
    """What the machine makes of an event in this phase."""
    if job.phase in (Phase.COMMITTING, Phase.FAILING):
        return job
    if job.phase is Phase.ROLLING_BACK:
        return jobs.succeeded(job) if event == "success" else job
    if event == "end" or (event in ("transient", "crash", "again") and jobs.is_exhausted(job)):
        return jobs.ended(job)
    if job.phase is Phase.TRIAL:
        if event == "success":
            return jobs.succeeded(job)
        return jobs.again(job) if event in ("again", "transient") else jobs.ended(job)
    begun = jobs.attempted(job)
    if event == "success":
        return jobs.succeeded(begun)
    if event in ("transient", "refusal"):
        return jobs.failed(begun, event, can_pass=event == "transient", now_ms=NOW_MS)
    return begun
