"""Statements about ThingsBoard that can be seen from outside, checked against any server.

The variables of tests/support/conformance_target.py name it. Without them the stand-in is checked. Everything made here
is deleted again.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from teg.simulator.thingsboard.server_limits import ServerLimits
from tests.conformance.stand_ins import named, stand_in
from tests.support.conformance import NotOffered, Tenant
from tests.support.conformance_report import Collected, Report
from tests.support.conformance_target import Target
from tests.support.conformance_unseen import UNSEEN

COLLECTED = Collected()
STARTED_S = time.time()
_ABOUT: dict[str, str] = {}
#: Shortened where a test would wait for minutes; and limits that a test meets at once.
STAND_IN = ServerLimits(provisioned_session_s=1.0, rpc_delivery_timeout_s=1.0, client_rpc_timeout_s=1.0)


@pytest.fixture(scope="session")
def target() -> Iterator[Target]:
    server = named()
    if server is not None:
        _ABOUT.update({"server": server.url, "mqtt": f"{server.host}:{server.port}", "version": server.version})
        tenant = Tenant(server.rest(), server)
        _ABOUT["left behind by an earlier run, deleted"] = str(len(tenant.sweep()))
        tenant.clean_up()
        yield server
        return
    _ABOUT["server"] = "the stand-in"
    with stand_in(STAND_IN) as ours:
        yield Target(ours.rest_url, ours.host, ours.port, version=STAND_IN.version)


@pytest.fixture
def tenant(target: Target) -> Iterator[Tenant]:
    tenant = Tenant(target.rest(), target)
    yield tenant
    tenant.clean_up()


@pytest.fixture
def report(request: pytest.FixtureRequest, target: Target) -> Report:
    group = request.path.stem.removeprefix("test_")
    return Report(group, request.node.user_properties, target.is_stand_in)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """What the server does not offer is a row of the report, not a failure of this test."""
    try:
        return (yield)
    except NotOffered as lacking:
        report: Report = item.funcargs["report"]  # type: ignore[attr-defined]
        report.not_checked(item.name.replace("_", " "), str(lacking))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if "tests/conformance/" in report.nodeid:
        COLLECTED.add(report)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What differs, one line a statement; everything with -v; and the file."""
    if not COLLECTED.rows:
        return
    terminalreporter.section(f"conformance: {COLLECTED.summary}")
    for row in COLLECTED.rows:
        if row.verdict in ("differs", "not checked") or terminalreporter.verbosity > 0:
            line = f"{row.verdict:12}{row.group}: {row.statement}: expected {row.expected}, seen {row.seen}"
            terminalreporter.line(line[:400])
    if place := os.environ.get("TB_TEST_REPORT"):
        about = {**_ABOUT, "seconds": f"{time.time() - STARTED_S:.0f}", "statements": str(len(COLLECTED.rows))}
        files = COLLECTED.write(Path(place), about, UNSEEN)
        terminalreporter.line(f"report: {', '.join(map(str, files))}")
