"""Sending archived records again where they are thinned: raw, all of them or some keys, beside what still waits."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from teg.domain.errors import Refused
from teg.domain.telemetry.ports import Stream
from tests.support.thinned import TS, ThinnedSite

RAW = [{"a": n, "gone": n, "m": n} for n in range(1200)]


@pytest.fixture
def here(tmp_path: Path) -> Iterator[ThinnedSite]:
    with closing(ThinnedSite(tmp_path, "gone: never; m: mean every 60s")) as here:
        here.archive.unproven.keeps_watermarks(True)
        here.record(*((TS + n, values) for n, values in enumerate(RAW)))
        yield here


def republish(here: ThinnedSite, *keys: str, first: int = 0, last: int = 1199) -> int:
    chosen = list(keys) or None
    return here.archive.maintenance.mark_for_publishing(TS + first, TS + last, keys=chosen)


def settle(here: ThinnedSite) -> None:
    """All sent, and proven."""
    here.later()
    here.archive.unproven.prove(here.archive.unproven.next_watermark().number)


def sent_anew(here: ThinnedSite) -> list[Any]:
    here.sent.clear()
    here.send()
    return [values for _, values in here.sent]


def test_a_range_goes_raw(here: ThinnedSite) -> None:
    here.later()
    assert republish(here) == 1200
    assert sent_anew(here) == RAW
    here.archive.assert_account()


def test_what_still_waits_goes_raw_too_where_it_would_be_thinned(here: ThinnedSite) -> None:
    here.decide()
    assert republish(here) == 1200
    here.send()
    assert all((key, TS + 1199) in here.server for key in ("a", "gone", "m"))
    here.archive.assert_account()


def test_some_keys_of_the_records_that_have_them(here: ThinnedSite) -> None:
    here.record((TS + 600, {"other": 1}))
    here.later()
    assert republish(here, "m", "gone", first=600) == 600
    assert sent_anew(here) == [{"gone": n, "m": n} for n in range(600, 1200)]
    settle(here)
    assert republish(here, "nobody") == 0
    here.archive.assert_account()


def test_other_keys_are_refused_while_some_are_on_their_way(here: ThinnedSite) -> None:
    here.later()
    republish(here, "m", first=10, last=20)
    for keys in ([], ["gone"]):
        with pytest.raises(Refused, match=r'the keys \["m"\] of this range are still on their way'):
            republish(here, *keys)
    assert republish(here, "m", first=15, last=30) == 10
    assert republish(here, "gone", first=31) == 1200 - 31
    assert len(sent_anew(here)) == 21 + 1200 - 31
    with pytest.raises(Refused):
        republish(here)  # acknowledged: an ended connection would send it once more
    here.archive.unproven.prove(here.archive.unproven.next_watermark().number)
    assert republish(here) == 1200
    assert sent_anew(here) == RAW


def test_what_is_on_its_way_whole_stays_whole(here: ThinnedSite) -> None:
    settle(here)
    assert republish(here, first=0, last=9) == 10
    assert republish(here, "m", first=0, last=19) == 10
    assert sent_anew(here) == [*RAW[:10], *({"m": n} for n in range(10, 20))]
    assert republish(here, "m", first=0, last=9) == 10  # whole and not proven yet
    here.archive.table.connection_ended()
    assert sent_anew(here)[:10] == RAW[:10]


def test_an_ended_connection_repeats_the_keys_that_were_asked_for(here: ThinnedSite) -> None:
    settle(here)
    republish(here, "m", last=9)
    assert sent_anew(here) == [{"m": n} for n in range(10)]
    assert here.archive.table.connection_ended() == 10
    assert sent_anew(here) == [{"m": n} for n in range(10)]
    assert here.archive.pending(Stream.REPUBLISH) == []
