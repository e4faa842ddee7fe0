"""From Docker's answers to observations: pure functions."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teg.adapters.docker_engine import runtime as engine_module
from teg.adapters.docker_engine.images import kept_images, split_reference
from teg.adapters.docker_engine.parsing import parse_memory_bytes, parse_observation, parse_time_ms
from teg.domain.supervision.runtime import KeptImage, NameTaken
from tests.support.docker_answers import CONTAINER, container


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-23T13:37:39.00379362Z", 1_795_441_059_003),  # Go trims zeros
        ("2026-11-23T13:37:39Z", 1_795_441_059_000),
        ("2026-11-23T13:37:39.5Z", 1_795_441_059_500),
        ("2026-11-23T14:37:39.5+01:00", 1_795_441_059_500),
        ("1970-01-01T00:00:07Z", 7_000),
        ("0001-01-01T00:00:00Z", None),  # never started
        ("2026-13-23T13:37:39Z", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_times(text: str, expected: int | None) -> None:
    assert parse_time_ms(text) == expected


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(9999, 1, 1)), st.integers(0, 999_999_999))
def test_every_time_go_writes_is_read(moment: datetime, nanoseconds: int) -> None:
    text = f"{moment:%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}".rstrip("0").rstrip(".") + "Z"
    whole = moment.replace(microsecond=0, tzinfo=UTC)
    assert parse_time_ms(f"{whole.year:04d}{text[text.index('-') :]}") == (
        int(whole.timestamp()) * 1000 + nanoseconds // 1_000_000
    )


@given(st.text())
def test_no_text_breaks_it(text: str) -> None:
    parse_time_ms(text)


@pytest.mark.parametrize(
    ("found", "ours", "version"),
    [
        (CONTAINER, True, "v1"),
        (container(Image="teg-controller-v1:latest"), True, None),
        (container(Image="teg-controller-v1:latest", Labels={"teg.managed": "0"}), True, None),
        (container(Image="renamed:1", Labels={"teg.managed": "1", "teg.version": "v2"}), True, "v2"),
        (container(Image="postgres:15"), False, None),
        (container(Image="sha256:0123"), False, None),
        (container(name="/other", Image="teg-controller-v1:latest"), False, None),
    ],
)
def test_what_is_ours(found: dict[str, Any], ours: bool, version: str | None) -> None:
    if ours:
        assert parse_observation(found).version == version
    else:
        with pytest.raises(NameTaken):
            parse_observation(found)


def test_a_run_is_named_by_container_and_start() -> None:
    again = CONTAINER | {"State": CONTAINER["State"] | {"StartedAt": "2026-01-01T00:00:01Z"}}
    assert parse_observation(CONTAINER).run_id != parse_observation(again).run_id


@pytest.mark.parametrize(
    ("stats", "expected"),
    [
        ({"memory_stats": {"usage": 1000, "stats": {"total_inactive_file": 300}}}, 700),
        ({"memory_stats": {"usage": 1000, "stats": {"inactive_file": 200}}}, 800),
        ({"memory_stats": {"usage": 1000}}, 1000),
        ({"memory_stats": {}}, None),  # a Raspberry Pi without memory cgroup
        ({}, None),
    ],
)
def test_memory(stats: dict[str, Any], expected: int | None) -> None:
    assert parse_memory_bytes(stats) == expected


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("host:5000/a/b:v1", ("host:5000/a/b", "v1")),
        ("host:5000/a/b", ("host:5000/a/b", "latest")),
        ("host/a@sha256:00", ("host/a", "sha256:00")),
        ("host:5000/a:v1@sha256:00", ("host:5000/a", "sha256:00")),
    ],
)
def test_references(reference: str, parts: tuple[str, str]) -> None:
    assert split_reference(reference) == parts


@pytest.mark.parametrize(
    ("tags", "names"),
    [
        (["teg-controller-v1:latest"], ["teg-controller-v1:latest"]),
        (["teg-controller-v1:latest", "theirs:1"], ["teg-controller-v1:latest"]),
        (["theirs:1"], []),  # it carries our label, but its only name is somebody else's
        (["<none>:<none>"], ["sha256:1"]),
        (None, ["sha256:1"]),
    ],
)
def test_only_our_names_of_an_image_may_go(tags: list[str] | None, names: list[str]) -> None:
    fields = {"Id": "sha256:1", "RepoTags": tags, "Created": 7, "Size": 9}
    assert list(kept_images(fields, False)) == [KeptImage(name, 7000, 9) for name in names]


def test_seconds_for_the_engine_are_exact() -> None:
    assert engine_module._seconds(1_795_441_059_000_000_001) == "1795441059.000000001"
