"""Names of images, which of them may go, and how states are told."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teg.domain.supervision.policy import History
from teg.domain.supervision.report import View, attributes, exit_telemetry, tail
from teg.domain.supervision.runtime import (
    OLD_IMAGE_MAX_AGE_MS,
    OLD_IMAGES_MAX_BYTES,
    KeptImage,
    Observation,
    image_name,
    plan_removals,
)

DOCKER_REFERENCE = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*:latest")
VERSIONS = st.from_regex(r"v?[0-9A-Za-z][0-9A-Za-z._-]{0,63}", fullmatch=True)
NOW_MS = 1_767_225_600_000


@pytest.mark.parametrize("version", ["v1", "1.2.3", "v1.0-rc1", "0" * 40, "a_b", "a__b", "a--b"])
def test_names_are_those_of_today(version: str) -> None:
    assert image_name(version) == f"teg-controller-{version}:latest"


@pytest.mark.parametrize("version", ["v1.0-RC1", "V1", "v1.", "v1..2", "-", "ä", "", "v1;id", "a/b:c"])
def test_names_docker_would_refuse_are_made_over(version: str) -> None:
    assert DOCKER_REFERENCE.fullmatch(image_name(version))


@given(VERSIONS, VERSIONS)
def test_two_versions_never_share_a_name(one: str, other: str) -> None:
    assert DOCKER_REFERENCE.fullmatch(image_name(one))
    assert (image_name(one) == image_name(other)) == (one == other)


@pytest.mark.parametrize(
    ("seen", "version", "runs"),
    [
        (Observation(exists=True, running=True, version="v1"), "v1", True),
        (Observation(exists=True, running=True, version="v1"), "v2", False),
        (Observation(exists=True, running=False, version="v1"), "v1", False),
        (Observation(exists=True, running=True, image="teg-controller-v1:latest"), "v1", True),
        (Observation(exists=True, running=True, image="teg-controller-v1:latest"), "v1.0", False),
        # The label counts, not a name that somebody moved.
        (Observation(exists=True, running=True, version="v2", image="teg-controller-v1:latest"), "v1", False),
    ],
)
def test_which_version_runs(seen: Observation, version: str, runs: bool) -> None:
    assert seen.runs(version) is runs


def image(version: str, age_days: float = 0, size: int = 1000, in_use: bool = False) -> KeptImage:
    return KeptImage(image_name(version), NOW_MS - int(age_days * 86_400_000), size, in_use)


@pytest.mark.parametrize(
    ("images", "keep", "removed"),
    [
        ([], [], []),
        ([image("v1", 400)], ["v1"], []),
        ([image("v1", 400, in_use=True)], [], []),
        ([image("v1", 29)], [], []),
        ([image("v1", 31)], [], ["v1"]),
        ([image("v1", -400)], [], []),  # the clock is behind: it looks as if made in the future
        ([image("v1", 2, OLD_IMAGES_MAX_BYTES), image("v2", 1, 1)], [], ["v1"]),  # newest first
        ([image("v1", 2, 1), image("v2", 1, OLD_IMAGES_MAX_BYTES)], [], ["v1"]),
        ([image("v1", 2, OLD_IMAGES_MAX_BYTES), image("v2", 1, OLD_IMAGES_MAX_BYTES)], ["v1", "v2"], []),
    ],
)
def test_which_images_go(images: list[KeptImage], keep: list[str], removed: list[str]) -> None:
    assert OLD_IMAGE_MAX_AGE_MS == 30 * 86_400_000
    assert plan_removals(images, keep, NOW_MS) == [image_name(version) for version in removed]


@pytest.mark.parametrize(
    ("text", "limit", "kept"),
    [("abc", 3, "abc"), ("one\ntwo", 5, "two"), ("x" * 10, 4, "xxxx"), ("äää", 3, "ä"), ("", 5, "")],
)
def test_the_end_of_a_text(text: str, limit: int, kept: str) -> None:
    assert tail(text, limit) == kept


@given(st.text(), st.integers(1, 50))
def test_the_end_of_any_text_fits(text: str, limit: int) -> None:
    assert len(tail(text, limit).encode()) <= limit
    assert text.endswith(tail(text, limit))


def test_what_does_not_hold_is_empty_because_the_server_skips_null() -> None:
    told = attributes(View(), History(), None)
    assert None not in told.values()
    assert told["controller_running_since_ms"] == 0 and told["controller_last_exit_code"] == ""


def test_a_version_that_looks_like_a_number_stays_text() -> None:
    assert attributes(View(version="1.10"), History(), None)["controller_version"] == "v1.10"


def test_an_exit_without_a_code_tells_none() -> None:
    assert "controller_exit_code" not in exit_telemetry(History(exit_reason="its container was removed"), [])
