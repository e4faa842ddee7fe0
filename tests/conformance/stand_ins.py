"""Where a server comes from: one that is named, or a stand-in in the state that a test needs."""

import os

import pytest

from teg.simulator.thingsboard.server import ThingsBoard
from teg.simulator.thingsboard.server_limits import ServerLimits
from tests.support.conformance_target import CannotTest, Target, checked, named_target


def stand_in(limits: ServerLimits) -> ThingsBoard:
    """Wrong on purpose when a test of the tests says so."""
    return ThingsBoard(rest_port=0, packet_log=0, limits=limits, deviation=os.environ.get("STAND_IN_DEVIATION"))


def named(user: str = "TB_TEST_USER") -> Target | None:
    """As the variables name it, as this user; None when they name none. Ends the run when it cannot be tested."""
    if user not in os.environ and user != "TB_TEST_USER":
        return None
    try:
        target = named_target(user=user)
        return None if target is None else checked(target)
    except CannotTest as problem:
        pytest.exit(f"cannot test: {problem}", returncode=pytest.ExitCode.USAGE_ERROR)
