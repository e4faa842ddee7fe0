"""The verdict on a trial, as a table."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teg.domain.ota.job import Trial
from teg.domain.ota.rollout import Result, TrialView, judge
from teg.domain.supervision.runtime import ABSENT, Observation

TRIAL = Trial(started_ms=1_000, started_s=100.0, boot_id="boot", heartbeat_before_ms=900, run_id="run-2")
UP = Observation(exists=True, running=True, run_id="run-2", version="v2")
LOOK = TrialView(seen=UP, heartbeat_ms=5_000, now_s=220.0, boot_id="boot")


@pytest.mark.parametrize(
    ("trial", "look", "result", "words"),
    [
        (TRIAL, LOOK, Result.PASSED, ""),
        (TRIAL, replace(LOOK, now_s=219.9), Result.WAIT, ""),
        (TRIAL, replace(LOOK, now_s=100.0, heartbeat_ms=None), Result.WAIT, ""),
        (TRIAL, replace(LOOK, heartbeat_ms=None), Result.FAILED, "no heartbeat within 120 s"),
        (TRIAL, replace(LOOK, heartbeat_ms=900), Result.FAILED, "no heartbeat within 120 s"),
        (TRIAL, replace(LOOK, heartbeat_ms=100), Result.PASSED, ""),  # another heartbeat; the clock was set back
        (replace(TRIAL, heartbeat_before_ms=None), LOOK, Result.PASSED, ""),
        (TRIAL, replace(LOOK, seen=replace(UP, running=False, exit_code=3)), Result.FAILED, "crashed (exit code 3)"),
        (TRIAL, replace(LOOK, seen=replace(UP, running=False, exit_code=0)), Result.FAILED, "ended by itself"),
        (
            TRIAL,
            replace(LOOK, seen=replace(UP, running=False, exit_code=137, oom_killed=True)),
            Result.FAILED,
            "out of memory",
        ),
        (TRIAL, replace(LOOK, seen=ABSENT), Result.FAILED, "its container was removed"),
        (TRIAL, replace(LOOK, seen=replace(UP, run_id="run-3")), Result.FAILED, "started again during its trial"),
        (TRIAL, replace(LOOK, seen=replace(UP, version="v1")), Result.FAILED, "did not stay up"),
        (TRIAL, replace(LOOK, seen=ABSENT, disturbed=True), Result.AGAIN, "interrupted"),
        (TRIAL, replace(LOOK, disturbed=True), Result.PASSED, ""),  # it went on running through it
        (TRIAL, replace(LOOK, boot_id="other"), Result.AGAIN, "started anew"),
        (replace(TRIAL, keys_before=("t", "h")), replace(LOOK, keys={"t"}), Result.FAILED, "no longer sends h"),
        (replace(TRIAL, keys_before=("t",)), replace(LOOK, keys={"t", "x"}), Result.PASSED, ""),
        (replace(TRIAL, keys_before=("t",)), replace(LOOK, now_s=150.0), Result.WAIT, ""),
    ],
)
def test_verdicts(trial: Trial, look: TrialView, result: Result, words: str) -> None:
    verdict = judge(trial, look, "v2", 120.0)
    assert verdict.result is result
    assert words in verdict.reason


def test_a_long_list_of_missing_keys_is_cut() -> None:
    trial = replace(TRIAL, keys_before=tuple(f"key{number}" for number in range(300)))
    assert len(judge(trial, LOOK, "v2", 120.0).reason) < 200


@given(
    running=st.booleans(),
    version=st.sampled_from(["v1", "v2"]),
    run_id=st.sampled_from(["run-1", "run-2"]),
    heartbeat_ms=st.sampled_from([None, 900, 5_000]),
    now_s=st.floats(0, 1_000),
    keys=st.sampled_from([(), ("t",)]),
    boot_id=st.sampled_from(["boot", "other"]),
    disturbed=st.booleans(),
)
def test_passed_means_up_for_the_whole_time_with_a_new_heartbeat(
    running: bool,
    version: str,
    run_id: str,
    heartbeat_ms: int | None,
    now_s: float,
    keys: tuple[str, ...],
    boot_id: str,
    disturbed: bool,
) -> None:
    seen = Observation(exists=True, running=running, version=version, run_id=run_id)
    look = TrialView(seen=seen, heartbeat_ms=heartbeat_ms, now_s=now_s, boot_id=boot_id, keys=keys, disturbed=disturbed)
    if judge(replace(TRIAL, keys_before=("t",)), look, "v2", 120.0).result is Result.PASSED:
        assert running and version == "v2" and run_id == "run-2" and boot_id == "boot"
        assert heartbeat_ms == 5_000 and now_s - TRIAL.started_s >= 120.0 and keys == ("t",)
