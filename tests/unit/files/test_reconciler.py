"""Remote files as the server and the operator see them: what is written, mirrored, reported and undone."""

import os
from typing import Any

import pytest

from tests.support.remote_files import Device, md5

# --- what the server wants is on disk afterwards -----------------------------------------------------------------


def test_a_text_file_is_written_hashed_and_read_back(device: Device) -> None:
    path = device.define("cfg", "config.txt", write_version=3)
    device.server.shared["FILE_CONTENT_cfg"] = "speed=3\n"
    device.files.reconcile()
    assert path.read_bytes() == b"speed=3\n"
    assert device.hashes == {"cfg": {"hash": md5(b"speed=3\n"), "write_version": 3}}
    assert device.read("cfg") == "speed=3\n"
    assert device.error("cfg") == ""


def test_json_is_spelled_as_the_reference_spells_it(device: Device) -> None:
    path = device.define("cfg", encoding="json")
    device.server.shared["FILE_CONTENT_cfg"] = {"b": 1, "a": ["ü", None]}
    device.files.reconcile()
    assert path.read_bytes() == b'{"b": 1, "a": ["\\u00fc", null]}'
    assert device.read("cfg") == {"b": 1, "a": ["ü", None]}


@pytest.mark.parametrize(("value", "spelled"), [([1, 2], b"[1, 2]"), (7, b"7"), ("x", b'"x"'), (False, b"false")])
def test_json_may_be_an_array_or_a_scalar(device: Device, value: object, spelled: bytes) -> None:
    path = device.define("cfg", encoding="json")
    device.server.shared["FILE_CONTENT_cfg"] = value
    device.files.reconcile()
    assert path.read_bytes() == spelled


@pytest.mark.parametrize(("value", "written"), [(42, b"42"), (1.5, b"1.5"), (True, b"true")])
def test_a_number_where_text_was_meant_is_written_as_its_digits(device: Device, value: object, written: bytes) -> None:
    path = device.define("cfg")
    device.server.shared["FILE_CONTENT_cfg"] = value
    device.files.reconcile()
    assert path.read_bytes() == written


def test_base64_is_decoded_and_read_back_as_base64(device: Device) -> None:
    path = device.define("key", encoding="base64")
    device.server.shared["FILE_CONTENT_key"] = "AAEC\nAw=="
    device.files.reconcile()
    assert path.read_bytes() == b"\x00\x01\x02\x03"
    assert device.read("key") == "AAECAw=="


def test_an_empty_content_makes_an_empty_file(device: Device) -> None:
    path = device.define("cfg")
    device.server.shared["FILE_CONTENT_cfg"] = ""
    device.files.reconcile()
    assert path.read_bytes() == b""
    assert device.read("cfg") == "E_EMPTYFILE"


def test_several_contents_are_applied_at_once_and_folders_are_made(device: Device) -> None:
    paths = [device.define(f"f{number}", f"a/b/{number}.txt") for number in range(20)]
    device.server.shared |= {f"FILE_CONTENT_f{number}": f"text {number}" for number in range(20)}
    device.files.reconcile()
    assert [path.read_text() for path in paths] == [f"text {number}" for number in range(20)]
    assert len(device.hashes) == 20


def test_contents_that_came_before_the_definition_are_applied_with_it(device: Device) -> None:
    device.server.shared["FILE_CONTENT_cfg"] = "early"
    device.files.reconcile()
    assert list(device.root.iterdir()) == []
    path = device.define("cfg")
    device.files.reconcile()
    assert path.read_text() == "early"


def test_a_content_changed_while_the_device_was_away_is_applied_without_a_new_version(device: Device) -> None:
    path = device.define("cfg", write_version=1)
    device.server.shared["FILE_CONTENT_cfg"] = "old"
    device.files.reconcile()
    device.server.shared["FILE_CONTENT_cfg"] = "new"
    device.restart_process()
    device.files.reconcile()
    assert path.read_text() == "new"


def test_applying_twice_writes_and_reports_once(device: Device) -> None:
    path = device.define("cfg")
    device.server.shared["FILE_CONTENT_cfg"] = "x"
    device.files.reconcile()
    before, reports, writes = path.stat(), len(device.server.reports), len(device.state.writes)
    device.wait(300)
    device.files.reconcile()
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert len(device.server.reports) == reports
    assert len(device.state.writes) == writes


def test_a_new_version_of_the_same_content_is_reported_without_a_write(device: Device) -> None:
    path = device.define("cfg", write_version=1)
    device.server.shared["FILE_CONTENT_cfg"] = "x"
    device.files.reconcile()
    inode = path.stat().st_ino
    device.define("cfg", write_version=2)
    device.files.reconcile()
    assert device.hashes["cfg"]["write_version"] == 2
    assert path.stat().st_ino == inode


def test_a_file_that_may_not_be_created_waits_until_it_exists(device: Device) -> None:
    path = device.define("cfg", create_if_not_exist=False, write_version=4)
    device.server.shared["FILE_CONTENT_cfg"] = "wanted"
    device.files.reconcile()
    assert not path.exists()
    assert device.hashes == {"cfg": {"hash": "E_NOFILE", "write_version": None}}
    assert device.read("cfg") == "E_NOFILE"
    path.write_text("made by the controller")
    device.wait(31)
    assert path.read_text() == "wanted"
    assert device.hashes == {"cfg": {"hash": md5(b"wanted"), "write_version": 4}}


# --- the server wins; mirrored files follow the disk -------------------------------------------------------------


def test_local_drift_is_undone_within_thirty_seconds(device: Device) -> None:
    path = device.define("cfg")
    device.server.shared["FILE_CONTENT_cfg"] = "wanted"
    device.files.reconcile()
    path.write_text("edited by hand")
    device.wait(31)
    assert path.read_text() == "wanted"
    path.unlink()
    device.wait(31)
    assert path.read_text() == "wanted"


def test_drift_is_undone_without_a_server_and_in_a_new_process(device: Device) -> None:
    path = device.define("cfg")
    device.server.shared["FILE_CONTENT_cfg"] = "wanted"
    device.files.reconcile()
    device.server.online = False
    path.write_text("edited by hand")
    device.reboot()
    device.wait(31)
    assert path.read_text() == "wanted"


def test_drift_within_the_clock_tick_of_the_last_look_is_found(device: Device) -> None:
    path = device.define("cfg")
    device.server.shared["FILE_CONTENT_cfg"] = "one"
    device.files.reconcile()
    before = path.stat()
    path.write_text("two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    device.wait(62)
    assert path.read_text() == "one"


def test_unchanged_files_are_not_read_again(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    device.define("cfg")
    device.server.shared["FILE_CONTENT_cfg"] = "x"
    device.files.reconcile()
    device.wait(62)
    opened: list[str] = []
    real = os.open

    def noted(name: str, *arguments: Any, **options: Any) -> int:
        opened.append(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(os, "open", noted)
    device.wait(120)
    assert opened, "the folder is walked"
    assert "cfg" not in opened


def test_a_changed_mode_is_set_again(device: Device) -> None:
    path = device.define("cfg", mode="0600")
    device.server.shared["FILE_CONTENT_cfg"] = "x"
    device.files.reconcile()
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o666)
    device.wait(31)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_without_content_is_mirrored_and_never_written(device: Device) -> None:
    path = device.define("log", "state.txt")
    device.files.reconcile()
    assert device.read("log") == "E_NOFILE"
    assert device.hashes == {"log": {"hash": "E_NOFILE", "write_version": None}}
    path.write_text("one")
    device.wait(31)
    assert device.read("log") == "one"
    path.write_text("two")
    device.wait(31)
    assert device.read("log") == "two"
    assert device.hashes["log"]["hash"] == md5(b"two")
    assert path.read_text() == "two"


def test_a_mirrored_json_file_is_sent_as_text(device: Device) -> None:
    device.define("cfg", encoding="json").write_text('{"a": 1}')
    device.files.reconcile()
    assert device.read("cfg") == '{"a": 1}'


@pytest.mark.parametrize("size", [60_000, 70_000, (1 << 20) + 1])
def test_a_file_that_fits_no_message_is_mirrored_as_size_and_hash(device: Device, size: int) -> None:
    data = b"x" * size
    device.define("big").write_bytes(data)
    device.files.reconcile()
    assert device.read("big") == f"E_TOOLARGE size={size} md5={md5(data)}"
    assert device.hashes["big"]["hash"] == md5(data)


def test_what_is_sent_fits_the_payload_limit(device: Device) -> None:
    device.define("big", encoding="text").write_bytes(b'"' * 40_000)  # every character is escaped: 80,000 bytes
    device.define("ok").write_bytes(b"x" * 59_000)
    device.files.reconcile()
    assert device.read("big").startswith("E_TOOLARGE")
    assert device.read("ok") == "x" * 59_000


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"a\x00b"])
def test_bytes_that_are_no_text_are_not_sent_as_text(device: Device, data: bytes) -> None:
    device.define("bin").write_bytes(data)
    device.files.reconcile()
    assert device.read("bin") == f"E_NOTTEXT size={len(data)} md5={md5(data)}"


# --- deleted attributes and definitions --------------------------------------------------------------------------


def test_a_deleted_definition_is_cleared_and_the_file_stays(device: Device) -> None:
    path = device.define("cfg")
    device.define("other").write_text("o")
    device.server.shared["FILE_CONTENT_cfg"] = "x"
    device.files.reconcile()
    del device.server.shared["FILES"]["cfg"]
    device.files.reconcile()
    assert device.read("cfg") == ""
    assert list(device.hashes) == ["other"]
    assert path.read_text() == "x"
    path.write_text("free now")
    device.wait(31)
    assert path.read_text() == "free now"


def test_deleting_FILES_clears_every_file(device: Device) -> None:
    device.define("cfg")
    device.server.shared["FILE_CONTENT_cfg"] = "x"
    device.files.reconcile()
    del device.server.shared["FILES"]
    device.files.reconcile()
    assert (device.hashes, device.read("cfg")) == ({}, "")


def test_a_deleted_content_makes_the_file_a_mirrored_one(device: Device) -> None:
    path = device.define("cfg")
    device.server.shared["FILE_CONTENT_cfg"] = "x"
    device.files.reconcile()
    del device.server.shared["FILE_CONTENT_cfg"]
    device.files.reconcile()
    path.write_text("edited by hand")
    device.wait(31)
    assert path.read_text() == "edited by hand"
    assert device.read("cfg") == "edited by hand"


def test_leftovers_in_FILE_HASHES_of_the_server_are_cleared(device: Device) -> None:
    device.server.client["FILE_HASHES"] = {"ghost": {"hash": "e" * 32, "write_version": 1}}
    device.files.reconcile()
    assert (device.hashes, device.read("ghost")) == ({}, "")


@pytest.mark.parametrize("hashes", [None, "text", 7, ["x"], {"cfg": "odd"}])
def test_missing_or_odd_FILE_HASHES_on_the_server_are_replaced(device: Device, hashes: object) -> None:
    if hashes is not None:
        device.server.client["FILE_HASHES"] = hashes
    device.define("cfg").write_text("x")
    device.files.reconcile()
    assert device.hashes == {"cfg": {"hash": md5(b"x"), "write_version": None}}
    assert device.read("cfg") == "x"


def test_init_tells_everything_anew(device: Device) -> None:
    device.define("cfg").write_text("x")
    device.files.reconcile()
    device.server.client.clear()
    device.files.init()
    assert device.hashes == {}
    assert device.files.stale
    assert device.files.take_due()
    device.files.check()
    assert device.hashes == {"cfg": {"hash": md5(b"x"), "write_version": None}}
    assert device.read("cfg") == "x"
