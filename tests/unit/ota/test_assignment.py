"""The wanted version: parsed from hostile attributes, and written back so that the server keeps it as text."""

import base64
import re
import string
import subprocess
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from teg.domain.errors import Refused
from teg.domain.ota.assignment import (
    FIELDS,
    MAX_ERROR_TEXT,
    AcceptRules,
    Assignment,
    Source,
    SwState,
    is_assigned_anew,
    is_commit_hash,
    parse_assignment,
    parse_reference,
    parse_version,
    relevant,
    status,
)
from teg.domain.ota.checksums import ALGORITHMS, new_hasher
from teg.domain.server.attributes import SOFTWARE_KEYS
from teg.domain.supervision.version import reported_version

REGISTRIES = ("registry.example:5000", "Images.example")
RULES = AcceptRules(registries=REGISTRIES)
SIGNED = AcceptRules(registries=REGISTRIES, signed_only=True)
SIGNATURE = base64.b64encode(b"SSHSIG" + bytes(170)).decode()
DIGEST = "@sha256:" + "ab" * 32
PACKAGE = {"version": "v2", "title": "ctl", "size": 20480, "checksum_algorithm": "SHA256", "checksum": "9f" * 32}

GOOD = ["v1", "1.10", "v1.4.0", "v1.0-RC1", "2024.01.05", "release_7", "0", "a" * 40, "0123456789abcdef" * 4, "v" * 64]
HOSTILE = [
    "--upload-pack=touch /tmp/x",
    "-h",
    "v1;id",
    "../x",
    "v1^{/a}",
    "v1 v2",
    "v1\n",
    "v1\x00",
    "refs/heads/main",
    "v1..v2",
    "v1.lock",
    "v1.",
    "v1:latest",
    "v1@{1}",
    "$(id)",
    "ext::sh -c id",
    "",
    "é1",
    "１",
    ".hidden",
    "v" * 66,
    "_x",
]


@pytest.mark.parametrize("version", GOOD)
def test_tags_and_hashes_are_accepted(version: str) -> None:
    assert parse_version(version) == version


@pytest.mark.parametrize("version", [*HOSTILE, None, True, 1.1, ["v1"], {"v": 1}, b"v1"])
def test_everything_else_is_refused_before_git_or_docker_see_it(version: Any) -> None:
    with pytest.raises(Refused, match="sw_version"):
        parse_version(version)


def test_a_whole_number_is_taken_as_text_but_a_fraction_is_not() -> None:
    assert parse_version(42) == "42"
    with pytest.raises(Refused, match="leading v"):
        parse_version(1.1)


@given(st.text(alphabet=string.printable + "é\x00", max_size=70))
@example("v1.lock")
def test_an_accepted_version_has_nothing_a_shell_or_git_could_read_otherwise(text: str) -> None:
    try:
        version = parse_version(text)
    except Refused:
        return
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", version)
    assert ".." not in version


@settings(max_examples=60)
@given(st.text(alphabet="vV01a.-_", min_size=1, max_size=12))
def test_git_takes_every_accepted_version_as_the_name_of_a_tag(text: str) -> None:
    try:
        version = parse_version(text)
    except Refused:
        return
    assert subprocess.run(["git", "check-ref-format", f"refs/tags/{version}"], check=False).returncode == 0


def test_only_full_hashes_are_commits() -> None:
    assert is_commit_hash("a" * 40)
    assert is_commit_hash("a" * 64)
    assert not is_commit_hash("a" * 39)
    assert not is_commit_hash("A" * 40)


# --- relevant ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shared", "expected"),
    [
        ({}, None),
        ({"FILES": {}}, None),
        ({"sw_title": "ctl"}, None),
        ({"sw_version": ""}, None),
        ({"sw_version": None}, None),
        ({"sw_version": "v1", "sw_url": "-", "FILES": {}}, {"version": "v1", "url": "-"}),
        ({"sf_version": "v1", "sf_title": "t"}, {"version": "v1", "title": "t"}),
        ({"sf_version": "v1", "sf_title": "old", "sw_version": "v2"}, {"version": "v2"}),
        ({"sw_version": ["v1"]}, {"version": "['v1']"}),
    ],
)
def test_relevant_attributes(shared: dict[str, Any], expected: dict[str, Any] | None) -> None:
    assert relevant(shared) == expected


def test_a_huge_value_is_not_stored() -> None:
    kept = relevant({"sw_version": "v" * 10_000_000, "sw_title": {"x": "y" * 1_000_000}})
    assert kept is not None
    assert len(str(kept)) < 2_000
    with pytest.raises(Refused):
        parse_assignment(kept, RULES)


def test_the_operators_hand_is_seen_in_a_push_of_the_version_only() -> None:
    assert is_assigned_anew(["FILES", "sw_version"])
    assert is_assigned_anew({"sf_version": "v1"})
    assert not is_assigned_anew(["sw_tag", "sw_url"])  # the server deletes stale ones with every assignment


def test_all_attributes_to_ask_for_are_named() -> None:
    assert {f"{prefix}_{name}" for prefix in ("sw", "sf") for name in FIELDS} == set(SOFTWARE_KEYS)


# --- sources ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", [None, "-", "", " - "])
def test_without_a_url_it_is_git(url: str | None) -> None:
    wanted = {"version": "v1"} if url is None else {"version": "v1", "url": url}
    assert parse_assignment(wanted, AcceptRules()) == Assignment(version="v1", title="v1", source=Source.GIT)


def test_a_stale_checksum_does_not_make_a_git_version_a_package() -> None:
    assert parse_assignment({**PACKAGE, "url": "-"}, AcceptRules()).source is Source.GIT


def test_a_package_is_recognised_by_size_and_checksum() -> None:
    assignment = parse_assignment(PACKAGE, AcceptRules())
    assert assignment == Assignment(
        version="v2", title="ctl", source=Source.PACKAGE, size=20480, checksum="9f" * 32, algorithm="SHA256"
    )
    assert assignment.content() == "SHA256:" + "9f" * 32


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_needs_its_own_number_of_digits(algorithm: str) -> None:
    digits = len(new_hasher(algorithm).hexdigest())
    good = {**PACKAGE, "checksum_algorithm": algorithm, "checksum": "A" * digits}
    assert parse_assignment(good, AcceptRules()).checksum == "a" * digits
    with pytest.raises(Refused, match="hex digits"):
        parse_assignment({**good, "checksum": "a" * (digits - 1)}, AcceptRules())


@pytest.mark.parametrize(
    "change",
    [
        {"size": 0},
        {"size": -1},
        {"size": True},
        {"size": 1.5},
        {"size": "20 kB"},
        {"size": None},
        {"size": 1 << 41},
        {"checksum": "../../etc/passwd"},
        {"checksum": ""},
        {"checksum": "zz" * 32},
        {"checksum_algorithm": "SHA1"},
        {"checksum_algorithm": ""},
        {"title": "t" * 600},
    ],
)
def test_a_package_that_could_not_be_verified_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(Refused, match=r"sw_|checksum"):
        parse_assignment({**PACKAGE, **change}, AcceptRules())


def test_a_size_that_arrives_as_text_is_read() -> None:
    assert parse_assignment({**PACKAGE, "size": "20480"}, AcceptRules()).size == 20480


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("registry.example:5000/ctl", "registry.example:5000/ctl:v3"),
        ("registry.example:5000/a/ctl:stable", "registry.example:5000/a/ctl:stable"),
        ("registry.example:5000/ctl" + DIGEST, "registry.example:5000/ctl" + DIGEST),
        ("docker://images.example/ctl:v3" + DIGEST, "images.example/ctl:v3" + DIGEST),
    ],
)
def test_images_of_allowed_registries(url: str, expected: str) -> None:
    assignment = parse_assignment({"version": "v3", "url": url}, RULES)
    assert (assignment.source, assignment.reference) == (Source.REGISTRY, expected)
    assert assignment.content() == (DIGEST[1:] if DIGEST in url else "")


@pytest.mark.parametrize(
    "url",
    [
        "evil.example/ctl:v1",
        "registry.example/ctl:v1",
        "registry.example:5001/ctl:v1",
        "registry.example:5000.evil.example/ctl",
        "user@registry.example:5000/ctl",
        "https://registry.example:5000/ctl",
        "http://registry.example:5000/package.tar",
        "registry.example:5000/ctl@sha256:123",
        "registry.example:5000/../ctl",
        "registry.example:5000/ctl --privileged",
        "registry.example:5000/CTL",
        "registry.example:5000/team/../ctl",
        "registry.example:5000/team//ctl",
        "registry.example:5000/team/./ctl",
        "registry.example:5000/-ctl",
        "ctl:v1",
        "file:///etc/passwd",
    ],
)
def test_other_hosts_and_forms_are_refused(url: str) -> None:
    with pytest.raises(Refused, match="sw_url"):
        parse_reference(url, "v1", REGISTRIES)


@pytest.mark.parametrize(
    ("entry", "url", "allowed"),
    [
        ("r.example/team/", "r.example/team/ctl:v1", True),
        ("r.example/team", "r.example/team/ctl:v1", True),
        ("r.example/team", "r.example/team:v1", True),
        ("R.Example/team/", "r.example/team/a/b:v1", True),
        ("r.example", "r.example/other/ctl:v1", True),
        ("r.example/team/", "r.example/teams/ctl:v1", False),
        ("r.example/team/", "r.example/team-evil/ctl:v1", False),
        ("r.example/team/", "r.example/other/team/ctl:v1", False),
        ("r.example/team/", "r.example/ctl:v1", False),
        ("r.example/team/", "r.example.evil/team/ctl:v1", False),
        ("r.example/team/", "evil.r.example/team/ctl:v1", False),
        ("r.example/team/", "r.example:5000/team/ctl:v1", False),
        ("r.example/team/", "r.example/Team/ctl:v1", False),
    ],
)
def test_a_registry_may_be_allowed_in_part(entry: str, url: str, allowed: bool) -> None:
    rules = AcceptRules(registries=(entry,))
    if allowed:
        assert parse_assignment({"version": "v1", "url": url}, rules).reference == url
        return
    with pytest.raises(Refused, match=r"TEG_OTA_REGISTRIES|sw_url"):
        parse_assignment({"version": "v1", "url": url}, rules)


def test_a_digest_may_be_required() -> None:
    rules = AcceptRules(registries=REGISTRIES, digest_only=True)
    with pytest.raises(Refused, match="TEG_OTA_REQUIRE_DIGEST"):
        parse_assignment({"version": "v1", "url": "registry.example:5000/ctl:v1"}, rules)
    assert DIGEST in parse_assignment({"version": "v1", "url": f"registry.example:5000/ctl{DIGEST}"}, rules).reference


@pytest.mark.parametrize("field", ["tag", "signature"])
@pytest.mark.parametrize("wanted", [PACKAGE, {"version": "v3", "url": f"registry.example:5000/ctl{DIGEST}"}])
def test_a_signature_comes_along_as_the_tag_or_in_an_attribute(wanted: dict[str, Any], field: str) -> None:
    armored = f"-----BEGIN SSH SIGNATURE-----\n{SIGNATURE[:70]}\n{SIGNATURE[70:]}\n-----END SSH SIGNATURE-----\n"
    for text in (SIGNATURE, armored):
        assert parse_assignment({**wanted, field: text}, SIGNED).signature == SIGNATURE
        assert parse_assignment({**wanted, field: text}, RULES).signature == ""  # nobody asked for one


@pytest.mark.parametrize("algorithm", ["CRC32", "MD5", "MURMUR3_128"])
def test_a_checksum_that_can_be_met_on_purpose_carries_no_signature(algorithm: str) -> None:
    digits = len(new_hasher(algorithm).hexdigest())
    weak = {**PACKAGE, "checksum_algorithm": algorithm, "checksum": "a" * digits, "tag": SIGNATURE}
    with pytest.raises(Refused, match="SHA256"):
        parse_assignment(weak, SIGNED)


def test_no_registry_is_allowed_by_default() -> None:
    with pytest.raises(Refused, match="TEG_OTA_REGISTRIES"):
        parse_assignment({"version": "v1", "url": "registry.example:5000/ctl"}, AcceptRules())


@pytest.mark.parametrize("wanted", [PACKAGE, {"version": "v1", "url": "registry.example:5000/ctl"}])
def test_what_carries_no_signature_is_refused_when_one_is_required(wanted: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="TEG_OTA_REQUIRE_SIGNATURE"):
        parse_assignment(wanted, SIGNED)
    assert parse_assignment({"version": "v1"}, SIGNED).source is Source.GIT


JSON = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=80)


@given(st.dictionaries(st.sampled_from(SOFTWARE_KEYS), JSON | st.lists(JSON, max_size=3)))
def test_any_attributes_are_an_assignment_or_refused(shared: dict[str, Any]) -> None:
    wanted = relevant(shared)
    if wanted is None:
        return
    try:
        assignment = parse_assignment(wanted, RULES)
    except Refused:
        return
    assert Assignment.parse(assignment.encode()) == assignment
    assert assignment.version == str(wanted["version"])


# --- reported ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.10", "1.1", "42", "007", ".5", "-7", "5.", "1" * 40])
def test_what_the_server_would_turn_into_a_number_gets_a_v(version: str) -> None:
    assert reported_version(version) == f"v{version}"


@pytest.mark.parametrize("version", ["v1.10", "1.2.3", "1e5", "abc", "UNKNOWN", "1.0-rc1", "a" * 40])
def test_other_versions_are_reported_as_they_are(version: str) -> None:
    assert reported_version(version) == version


def test_status_has_the_reference_gateways_four_keys() -> None:
    assert status("1.10", "7", SwState.FAILED, "x" * 9_000) == {
        "current_sw_title": "v7",
        "current_sw_version": "v1.10",
        "sw_state": "FAILED",
        "sw_error": "x" * (MAX_ERROR_TEXT - 1) + "…",
    }
