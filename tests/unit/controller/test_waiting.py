"""A client that waits says what for; on a desk, where no gateway will ever come, it does not wait at all."""

from pathlib import Path

import pytest

from controller_client import NotRecorded, teg_controller
from controller_client.teg_controller import Gateway


def test_a_call_that_waits_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teg_controller, "_UNSAID_S", 0.05)
    gateway = Gateway(tmp_path / "no" / "q.db", retry_s=0.3)
    with pytest.raises(NotRecorded):
        gateway.send({"a": 1})
    assert [record.message for record in caplog.records if "waiting for" in record.message] == [
        f"waiting for {tmp_path}/no/q.db: unable to open database file (is the directory there, writable and not full?)"
    ]


def test_a_short_wait_is_not_worth_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(NotRecorded):
        Gateway(tmp_path / "no" / "q.db", retry_s=0.2).send({"a": 1})
    assert not caplog.records


def test_on_a_desk_it_says_at_once_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teg_controller, "_IN_THE_CONTAINER", str(tmp_path / "data"))
    monkeypatch.setattr(teg_controller, "_MARKS_OF_A_CONTAINER", (str(tmp_path / "mark"),))
    monkeypatch.delenv("TEG_CONTROLLER_DATA_PATH", raising=False)
    with pytest.raises(NotRecorded, match=r"there is no .*/data: on a desk, .* set TEG_CONTROLLER_DATA_PATH"):
        Gateway(retry_s=1e6).send({"a": 1})
    (tmp_path / "mark").touch()
    with pytest.raises(NotRecorded, match="could not be written for 0 s"):
        Gateway(retry_s=0).send({"a": 1})
