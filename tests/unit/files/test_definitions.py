"""The values of FILES and FILE_CONTENT_*: what is accepted, what is refused, and in which words."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teg.domain.errors import Refused
from teg.domain.files.definitions import (
    MAX_FILE_BYTES,
    Definition,
    encode_content,
    parse_definition,
    parse_definitions,
)


def parse(**entry: Any) -> Definition:
    return parse_definition("cfg", {"path": "$DATA_PATH/x"} | entry, "/data")


def test_defaults_are_the_references() -> None:
    assert parse() == Definition("cfg", "/data/x", "text", None, False, True, None, None)


@pytest.mark.parametrize("path", ["%DATA_PATH%/x", "$DATA_PATH$/x", "$DATA_PATH/x", "/data/x"])
def test_each_spelling_of_the_data_folder(path: str) -> None:
    assert parse(path=path).path == "/data/x"


def test_every_field_is_taken() -> None:
    found = parse(
        encoding="base64",
        write_version="v2",
        restart_controller_on_change=True,
        create_if_not_exist=False,
        mode="0640",
        confirm_s=90,
    )
    assert found == Definition("cfg", "/data/x", "base64", "v2", True, False, 0o640, 90)


def test_unknown_fields_are_ignored() -> None:
    assert parse(comment="set by Anna") == parse()


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"path": None}, '"path" is missing'),
        ({"path": 5}, '"path" is missing, or is not a text'),
        ({"path": " "}, '"path" is missing'),
        ({"encoding": "TEXT"}, "\"encoding\" is 'TEXT', not one of text, json, base64"),
        ({"encoding": 1}, '"encoding" is 1'),
        ({"encoding": ["text"]}, '"encoding" is'),
        ({"write_version": {"a": 1}}, '"write_version" is a JSON object'),
        ({"write_version": [1]}, '"write_version" is a JSON array'),
        ({"restart_controller_on_change": "true"}, "\"restart_controller_on_change\" is 'true', not true or false"),
        ({"create_if_not_exist": 0}, '"create_if_not_exist" is 0, not true or false'),
        ({"mode": 640}, '"mode" is 640, not three octal digits'),
        ({"mode": "0980"}, "\"mode\" is '0980'"),
        ({"mode": "4755"}, "\"mode\" is '4755'"),
        ({"mode": "٠640"}, '"mode" is'),
        ({"confirm_s": 0}, '"confirm_s" is 0, not a whole number from 1 to 86400'),
        ({"confirm_s": 1.5}, '"confirm_s" is 1.5'),
        ({"confirm_s": True}, '"confirm_s" is True'),
        ({"confirm_s": "60"}, "\"confirm_s\" is '60'"),
    ],
)
def test_what_is_wrong_is_named(entry: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused) as refused:
        parse(**entry)
    assert said in str(refused.value)


@pytest.mark.parametrize("entry", [None, "text", 5, [], True])
def test_an_entry_that_is_no_object(entry: Any) -> None:
    with pytest.raises(Refused, match="not an object"):
        parse_definition("cfg", entry, "/data")


@pytest.mark.parametrize("key", ["", " ", "a,b", "a\nb", "k" * 201])
def test_a_key_that_could_not_be_asked_for(key: str) -> None:
    found = parse_definitions({key: {"path": "/data/x"}}, "/data")
    assert (dict(found.usable), list(found.problems)) == ({}, [key[:200]])


def test_two_keys_for_one_file_would_fight_each_other() -> None:
    found = parse_definitions({"b": {"path": "/data//x"}, "a": {"path": "$DATA_PATH/./x"}}, "/data")
    assert list(found.usable) == ["a"]
    assert found.problems == {"b": "'a' already stands for /data//x"}


def test_no_FILES_at_all_is_no_files() -> None:
    assert dict(parse_definitions(None, "/data").usable) == {}


@pytest.mark.parametrize("files", ["{}", 1, [], False])
def test_FILES_that_is_no_object(files: Any) -> None:
    with pytest.raises(Refused, match="choose the type JSON"):
        parse_definitions(files, "/data")


def test_many_files_are_cut_where_their_hashes_fill_a_message() -> None:
    found = parse_definitions({f"{n:04}": {"path": f"/data/{n}"} for n in range(1000)}, "/data")
    assert 600 < len(found.usable) < 1000
    assert "too many files" in found.problems[f"{len(found.usable):04}"]
    huge = {"path": "/data/a", "write_version": "v" * 60_000}
    assert "a" in parse_definitions({"a": huge, "b": {"path": "/data/b"}}, "/data").problems


@pytest.mark.parametrize(
    ("encoding", "value", "said"),
    [
        ("text", {"a": 1}, "use the encoding json"),
        ("text", [1], "use the encoding json"),
        ("text", "\ud800", "not valid text"),
        ("base64", 1234, "end the text with a line break"),
        ("base64", "abc", "not valid base64"),
        ("base64", "ü", "not valid base64"),
        ("base64", "AAEC!", "not valid base64"),
        ("base64", "a-_=", "not valid base64"),
        ("base64", {"a": 1}, "JSON object, not base64"),
        ("json", float("nan"), "cannot be written as JSON"),
        ("text", "x" * (MAX_FILE_BYTES + 1), "the limit is 1048576"),
        ("json", ["x" * MAX_FILE_BYTES], "the limit is 1048576"),
    ],
)
def test_a_content_that_does_not_fit(encoding: str, value: Any, said: str) -> None:
    with pytest.raises(Refused) as refused:
        encode_content(parse(encoding=encoding), value)
    assert said in str(refused.value)


def test_a_content_nested_beyond_reason_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(Refused, match="cannot be written as JSON"):
        encode_content(parse(encoding="json"), deep)


def test_the_largest_file_is_accepted() -> None:
    assert len(encode_content(parse(), "x" * MAX_FILE_BYTES)) == MAX_FILE_BYTES


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from(
    ["path", "encoding", "write_version", "restart_controller_on_change", "create_if_not_exist", "mode", "confirm_s"]
)


@given(st.dictionaries(st.text(), json_values | st.dictionaries(fields, json_values), max_size=6) | json_values)
def test_any_FILES_is_parsed_or_refused(files: Any) -> None:
    try:
        found = parse_definitions(files, "/data")
    except Refused:
        return
    assert not set(found.usable) & set(found.problems)


@given(st.sampled_from(["text", "json", "base64"]), json_values)
def test_any_content_is_encoded_or_refused(encoding: str, value: Any) -> None:
    try:
        assert isinstance(encode_content(parse(encoding=encoding), value), bytes)
    except Refused:
        return
