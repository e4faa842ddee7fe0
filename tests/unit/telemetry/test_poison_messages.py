"""PoisonMessages: what is careful, what is certain, when it ends, and when it is the server."""

import pytest

from teg.domain.server import PROBE
from teg.domain.telemetry.poison_messages import CONTROL_BYTES, HOPE, STRIKES, Group, PoisonMessages
from teg.domain.telemetry.ports import Stream

SAMPLE = b'[{"ts":1,"values":{"n":1}}]'


def group(*ids: int, lane: Stream = Stream.DATA) -> Group:
    return tuple((lane, row_id) for row_id in ids)


def strike(poison: PoisonMessages, *, times: int = STRIKES) -> list[tuple[Stream, int]]:
    """Close on the present group, alone, each time right after an acknowledged probe."""
    found = []
    for _ in range(times):
        poison.probed(acknowledged=True)
        if (culprit := poison.closed([poison.group])) is not None:
            found.append(culprit)
    return found


@pytest.fixture
def with_control() -> PoisonMessages:
    poison = PoisonMessages()
    poison.passed(group(1000), SAMPLE)
    return poison


def test_in_good_times_there_is_no_suspicion(with_control: PoisonMessages) -> None:
    assert not with_control.active
    assert not with_control.wants_probe
    assert not with_control.hopeful
    assert not with_control.refusing


def test_a_close_makes_every_publish_on_its_way_a_group(with_control: PoisonMessages) -> None:
    assert with_control.closed([group(1, 2, 3), group(4, 5)]) is None
    assert with_control.group == group(1, 2, 3)
    assert not with_control.wants_probe
    with_control.passed(group(1, 2, 3), SAMPLE)
    assert with_control.group == group(4, 5)
    with_control.passed(group(4, 5), SAMPLE)
    assert not with_control.active


def test_a_group_that_was_alone_is_halved_down_to_one(with_control: PoisonMessages) -> None:
    with_control.closed([group(*range(100))])
    sizes = []
    while len(with_control.group) > 1:
        assert with_control.closed([with_control.group]) is None
        sizes.append(len(with_control.group))
    assert sizes == [50, 25, 12, 6, 3, 1]


def test_only_closes_right_after_an_acknowledged_probe_are_strikes(with_control: PoisonMessages) -> None:
    with_control.closed([group(7)])
    for _ in range(10):
        assert with_control.closed([group(7)]) is None
        assert with_control.wants_probe
    assert strike(with_control) == [(Stream.DATA, 7)]
    assert not with_control.active


def test_an_acknowledgement_acquits_and_forgets_the_strikes(with_control: PoisonMessages) -> None:
    with_control.closed([group(7), group(8)])
    strike(with_control, times=STRIKES - 1)
    with_control.passed(group(7), SAMPLE)
    assert with_control.group == group(8)
    with_control.passed(group(8), SAMPLE)
    with_control.closed([group(7)])
    assert strike(with_control, times=STRIKES - 1) == []


def test_the_same_id_in_another_stream_is_another_record(with_control: PoisonMessages) -> None:
    with_control.closed([group(7), group(7, lane=Stream.REPUBLISH)])
    with_control.passed(group(7), SAMPLE)
    assert with_control.group == group(7, lane=Stream.REPUBLISH)


def test_reconnecting_at_once_ends_when_closing_goes_on_for_too_long(with_control: PoisonMessages) -> None:
    """Then it is no poison but a sick server, and reconnecting soon would only make it worse."""
    for _ in range(HOPE):
        with_control.closed([group(1, 2, 3), group(4, 5, 6)])
        assert with_control.hopeful
    with_control.closed([group(1, 2, 3), group(4, 5, 6)])
    assert not with_control.hopeful
    assert with_control.active


def test_records_that_are_gone_are_not_searched_any_more(with_control: PoisonMessages) -> None:
    with_control.closed([group(1, 2, 3), group(4)])
    with_control.present(group(2))
    assert with_control.group == group(2)
    with_control.present(())
    assert with_control.group == group(4)


# --- a server that refuses everything


def test_the_control_is_a_record_that_the_server_has_taken_and_never_a_large_one() -> None:
    poison = PoisonMessages()
    assert poison.probe == PROBE
    poison.passed(group(1), b"x" * (CONTROL_BYTES + 1))
    assert poison.probe == PROBE
    poison.passed(group(2), SAMPLE)
    assert poison.probe == SAMPLE


def test_a_server_that_closes_on_the_control_refuses_everything(with_control: PoisonMessages) -> None:
    with_control.closed([group(1)])
    for _ in range(50):
        assert with_control.wants_probe
        with_control.probed(acknowledged=False)
        assert with_control.refusing
        assert not with_control.hopeful
    with_control.probed(acknowledged=True)
    assert not with_control.refusing
    assert with_control.closed([group(1)]) is None, "what came before does not count as a strike"


def test_a_first_culprit_without_a_control_waits_for_the_next_acknowledged_record() -> None:
    poison = PoisonMessages()
    poison.closed([group(1), group(2)])
    assert strike(poison) == []
    assert poison.held == set(group(1))
    assert poison.passed(group(2), SAMPLE) == [(Stream.DATA, 1)]
    assert poison.held == set()


def test_two_culprits_without_an_acknowledged_record_between_them_are_the_server() -> None:
    poison = PoisonMessages()
    poison.closed([group(number) for number in range(10)])
    assert strike(poison) + strike(poison) == []
    assert poison.refusing
    assert poison.held == set()
    assert not poison.hopeful
    tried = set()
    for _ in range(10):
        assert strike(poison, times=1) == []
        tried.add(poison.group)
    assert len(tried) == 10, "each try is another record: it may show sooner that the server is well again"
    assert poison.passed(poison.group, SAMPLE) == [], "nobody is blamed for what the server did"
    assert not poison.refusing
