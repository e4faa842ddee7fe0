"""Links that stand still and then hand on everything at once: the server's buckets are kept all the same."""

from collections import deque
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teg.domain.server.rate_limits import Pacer, parse_limits
from teg.simulator.thingsboard.rate_limits import TokenBucket

SPECS = ["10:1", "20:1,600:60", "500:1,15000:60", "50:1,3000:60", "3:1,60:60"]
STEP_S = 0.05


class Link:
    """In order; what is sent while it stands still arrives when it moves again. Acknowledged a step after that."""

    def __init__(self, spec: str) -> None:
        self.server, self.pacer = TokenBucket(spec), Pacer()
        self.pacer.use(parse_limits({"rateLimits": {"telemetryDataPoints": spec}}), 0.0)
        self.refused = self.carried = 0
        self._sent: deque[int] = deque()
        self._acknowledged: deque[int] = deque()

    def step(self, now_s: float, moves: bool, points: int) -> None:
        """Sends as much as the pacer lets through, and hands on what waits if the link moves."""
        while self._acknowledged:
            self.pacer.arrived(now_s, self._acknowledged.popleft())
        while self.pacer.take(now_s, points) == 0.0:
            self._sent.append(points)
        while moves and self._sent:
            points = self._sent.popleft()
            self.refused += not self.server.take(points, now_s)
            self.carried += points
            self._acknowledged.append(points)


def run(spec: str, moves: Sequence[bool], points: int) -> Link:
    link = Link(spec)
    for number, now in enumerate(moves):
        link.step(number * STEP_S, now, min(points, link.pacer.limits.max_points or points))
    return link


@given(st.sampled_from(SPECS), st.lists(st.tuples(st.booleans(), st.integers(1, 80)), max_size=30), st.integers(1, 300))
def test_no_link_makes_us_exceed_a_limit(spec: str, phases: list[tuple[bool, int]], points: int) -> None:
    """It moves for so many steps, stands still for so many, and so on."""
    moves = [moving for moving, steps in phases for _ in range(steps)] + [True]
    assert run(spec, moves, points).refused == 0


@pytest.mark.parametrize("still_s", [0.25, 1.0, 5.0])
@pytest.mark.parametrize("spec", SPECS)
def test_a_link_that_stands_still_now_and_then(spec: str, still_s: float) -> None:
    """The heap of a second of the highest rate is more than the bucket of a second holds."""
    still = [False] * int(still_s / STEP_S)
    assert run(spec, ([True] * 100 + still) * 10 + [True], 20).refused == 0


@pytest.mark.parametrize("spec", SPECS)
def test_a_link_that_only_delays_costs_hardly_anything(spec: str) -> None:
    """Each message is acknowledged a step later: at least nine tenths of what the limit allows get through."""
    seconds = 600
    link = run(spec, [True] * int(seconds / STEP_S), 1_000)
    capacity, per_s = (int(number) for number in spec.split(",")[-1].split(":"))
    assert link.refused == 0
    assert link.carried >= 0.9 * seconds * capacity / per_s
