"""What alarms on the server stand on: told when it changes, never twice, and again when the server did not get it."""

from typing import Any, cast

import orjson
import pytest

from teg.domain.errors import Unavailable
from teg.domain.server import TELEMETRY
from teg.domain.telemetry.reporting import Auxiliary
from teg.domain.telemetry.waiting_report import WaitingReport, waiting_values

NOW_MS = 1_800_000_000_000


class Counts:
    def __init__(self) -> None:
        self.oldest_ms: int | None = None
        self.letters = 0

    def __call__(self) -> dict[str, Any]:
        return {"oldest_pending_ts": self.oldest_ms, "dead_letters": self.letters}


@pytest.mark.parametrize(
    ("oldest_ms", "age_s"),
    [(None, 0), (NOW_MS, 0), (NOW_MS - 59_999, 0), (NOW_MS - 60_000, 60), (NOW_MS - 7_261_500, 7261), (NOW_MS + 9, 0)],
)
def test_the_age_is_the_oldest_ones_and_0_below_a_minute(oldest_ms: int | None, age_s: int) -> None:
    counts = {"oldest_pending_ts": oldest_ms, "dead_letters": 4}
    assert waiting_values(counts, NOW_MS) == {"backlog_age_s": age_s, "dead_letters": 4}


def test_only_what_changed_is_told_and_everything_the_first_time() -> None:
    counts = Counts()
    report = WaitingReport(counts)
    assert report.changed(NOW_MS) == {"backlog_age_s": 0, "dead_letters": 0}
    report.told(report.changed(NOW_MS))
    assert report.changed(NOW_MS + 20_000) == {}
    counts.letters = 1
    assert report.changed(NOW_MS) == {"dead_letters": 1}


class Silent:
    """A controller and a heartbeat that do not exist, a session that may lose its acknowledgement, a clock."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Any]] = []
        self.connected = True
        self.acknowledges = True

    def running_since_ms(self) -> None:
        return None

    def last_heartbeat_ms(self) -> None:
        return None

    def now_ms(self) -> int:
        return NOW_MS

    def monotonic_s(self) -> float:
        return 0.0

    def deliver(self, topic: str, payload: bytes, _timeout_s: float) -> None:
        self.sent.append((topic, orjson.loads(payload)))
        if not self.acknowledges:
            raise Unavailable("no PUBACK")


def test_what_was_not_acknowledged_is_told_again() -> None:
    silent, counts = Silent(), Counts()
    counts.oldest_ms = NOW_MS - 120_000
    auxiliary = Auxiliary(cast(Any, silent), cast(Any, silent), silent, cast(Any, silent), WaitingReport(counts))
    silent.acknowledges = False
    with pytest.raises(Unavailable):
        auxiliary.send()
    silent.acknowledges = True
    auxiliary.send()
    auxiliary.send()
    message = (TELEMETRY, {"ts": NOW_MS, "values": {"backlog_age_s": 120, "dead_letters": 0}})
    assert silent.sent == [message, message]
