"""PoisonMessages: what is careful, what is certain, and when it ends."""

from teg.domain.telemetry.poison_messages import HOPE, STRIKES, PoisonMessages
from teg.domain.telemetry.ports import Stream


def cargo(*ids: int, lane: Stream = Stream.DATA) -> tuple[Stream, tuple[int, ...]]:
    return lane, ids


def test_in_good_times_there_is_no_suspicion() -> None:
    suspicion = PoisonMessages()
    suspicion.passed(cargo(1, 2, 3))
    assert (suspicion.active, suspicion.max_rows, suspicion.wants_probe, suspicion.hopeful) == (
        False,
        None,
    ) + (False,) * 2


def test_a_close_makes_the_whole_flight_suspect_and_keeps_the_batch_size() -> None:
    suspicion = PoisonMessages()
    assert suspicion.closed([cargo(1, 2, 3), cargo(4, 5)]) is None
    assert suspicion.active
    assert suspicion.max_rows == 3
    assert not suspicion.wants_probe


def test_a_batch_that_was_alone_is_halved_down_to_one() -> None:
    suspicion = PoisonMessages()
    sizes = []
    size = 100
    while suspicion.max_rows != 1:
        assert suspicion.closed([cargo(*range(size))]) is None
        size = suspicion.max_rows or 0
        sizes.append(size)
    assert sizes == [50, 25, 12, 6, 3, 1]


def test_only_closes_right_after_an_acknowledged_probe_are_strikes() -> None:
    suspicion = PoisonMessages()
    for _ in range(10):
        assert suspicion.closed([cargo(7)]) is None
        assert suspicion.wants_probe
    for _ in range(STRIKES - 1):
        suspicion.probed()
        assert not suspicion.wants_probe
        assert suspicion.closed([cargo(7)]) is None
    suspicion.probed()
    assert suspicion.closed([cargo(7)]) == (Stream.DATA, 7)
    assert not suspicion.active
    assert suspicion.max_rows is None


def test_an_acknowledgement_acquits_and_forgets_the_strikes() -> None:
    suspicion = PoisonMessages()
    suspicion.closed([cargo(7, 8)])
    for _ in range(STRIKES - 1):
        suspicion.probed()
        suspicion.closed([cargo(7)])
    suspicion.passed(cargo(7))
    assert suspicion.active  # 8 is still suspect
    assert suspicion.max_rows == 1
    suspicion.passed(cargo(8))
    assert not suspicion.active
    suspicion.closed([cargo(7)])
    suspicion.probed()
    assert suspicion.closed([cargo(7)]) is None


def test_the_same_id_in_another_lane_is_another_record() -> None:
    suspicion = PoisonMessages()
    suspicion.closed([cargo(7), cargo(7, lane=Stream.REPUBLISH)])
    suspicion.passed(cargo(7, lane=Stream.REPUBLISH))
    assert suspicion.active


def test_hurry_ends_when_closing_goes_on_for_too_long() -> None:
    """Then it is no poison but a sick server, and reconnecting soon would only make it worse."""
    suspicion = PoisonMessages()
    for _ in range(HOPE):
        suspicion.closed([cargo(1, 2, 3)])
        assert suspicion.hopeful
    suspicion.closed([cargo(1, 2, 3)])
    assert not suspicion.hopeful
    assert suspicion.active


def test_clear_ends_it() -> None:
    suspicion = PoisonMessages()
    suspicion.closed([cargo(1, 2)])
    suspicion.clear()
    assert not suspicion.active
    assert suspicion.max_rows is None
