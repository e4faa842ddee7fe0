"""Statements about ThingsBoard that can be seen from outside, checked against any server.

`TB_TEST_URL` (REST), `TB_TEST_MQTT` (host:port), `TB_TEST_USER` and `TB_TEST_PASSWORD` of a tenant administrator
name it; `TB_TEST_VERSION` says which release it is. Without them the stand-in is checked. Every device, package and
profile made here is deleted again.
"""

import os
from collections.abc import Iterator

import pytest

from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.conformance import SABOTAGES, Report, Target, Tenant
from tests.support.rest import Rest

REPORT = Report()


@pytest.fixture(scope="session")
def target() -> Iterator[Target]:
    url = os.environ.get("TB_TEST_URL")
    if url is None:
        with ThingsBoard(rest_port=0, packet_log=0) as server:
            SABOTAGES[os.environ.get("STAND_IN_SABOTAGE", "none")](server)
            yield Target(server.rest_url, server.host, server.port)
        return
    host, _, port = os.environ["TB_TEST_MQTT"].rpartition(":")
    login = os.environ["TB_TEST_USER"], os.environ["TB_TEST_PASSWORD"]
    yield Target(url.rstrip("/"), host, int(port), *login, os.environ.get("TB_TEST_VERSION", "4.2.1.1"))


@pytest.fixture
def tenant(target: Target) -> Iterator[Tenant]:
    tenant = Tenant(Rest(target.url, target.user, target.password), target)
    yield tenant
    tenant.clean_up()


@pytest.fixture
def report() -> Report:
    return REPORT


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What differs, one line a statement; everything with -v."""
    if not REPORT.rows:
        return
    terminalreporter.section(f"conformance: {len(REPORT.rows)} statements, {REPORT.differing} differ")
    for row in REPORT.rows:
        if not row.holds or terminalreporter.verbosity > 0:
            sign = "    " if row.holds else "DIFF"
            terminalreporter.line(f"{sign} {row.statement}: expected {row.expected!r}, seen {row.seen!r}"[:400])
