"""Several gateways on one Redis or PostgreSQL: each sees its own tasks only. Credentials and TLS come in the URL."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.queue_libraries import environment
from tests.support.queue_servers import PostgresqlServer, QueueServer, RedisServer
from tests.support.running import ControllerInbox, RunningGateway, message, wait_until


@pytest.fixture(params=["redis", "postgresql"])
def queue_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[QueueServer]:
    server = RedisServer() if request.param == "redis" else PostgresqlServer()
    try:
        server.secure(tmp_path / "tls", "s3cret")
        server.start()
        yield server
    finally:
        server.kill()
        if isinstance(server, PostgresqlServer):
            server.remove()


class Member:
    """A gateway of the fleet, its inbox and its device on the server."""

    def __init__(self, directory: Path, server: ThingsBoard, queue_url: str, number: int) -> None:
        token = f"TOKEN-{number}"
        self.device = server.add_device(f"pi-{number}", token=token)
        self.gateway = RunningGateway(
            directory, server.host, server.port, token, TEG_QUEUE_URL=queue_url, **environment()
        )
        self.inbox = ControllerInbox(self.gateway.inbox_path)
        self.first = 1000 * number

    def close(self) -> None:
        self.gateway.kill()
        self.inbox.close()

    def record(self, count: int) -> None:
        self.inbox.insert_many([message(self.first + number) for number in range(count)])
        self.first += count

    def wait_until_all_arrived(self, count: int) -> None:
        wait_until(lambda: len(self.numbers()) == count, 60, f"{count} records of {self.device.name} on the server")

    def numbers(self) -> set[int]:
        return {values["n"] for _, values in self.device.records() if "n" in values}

    def answers(self) -> bool:
        return bool(self.device.rpc("ping", timeout_s=5).response == {"message": "Pong"})


def test_three_gateways_on_one_server_one_of_them_killed(tmp_path: Path, queue_server: QueueServer) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(ThingsBoard())
        members = [Member(tmp_path / f"site-{n}", server, queue_server.url, n) for n in (1, 2, 3)]
        for member in members:
            stack.callback(member.close)
            member.gateway.start()
        for member in members:
            member.record(300)
        for member in members:
            member.wait_until_all_arrived(300)
        dead, *living = members
        dead.gateway.kill()
        for member in members:
            member.record(300)
        for member in living:
            member.wait_until_all_arrived(600)
            assert all(member.answers() for _ in range(10)), "each call is answered: nobody else takes its task"
        assert len(dead.numbers()) == 300
        dead.gateway.start()
        dead.wait_until_all_arrived(600)
        assert dead.answers()
        for member in members:
            assert member.gateway.stop() == 0
            assert member.gateway.archived() == 600, "each archived its own records, and only those"
            log = member.gateway.log()
            assert "Traceback" not in log
            assert "s3cret" not in log


def test_a_wrong_password_is_said_without_it(tmp_path: Path, queue_server: QueueServer) -> None:
    with ThingsBoard() as server:
        member = Member(tmp_path / "site", server, queue_server.url.replace("s3cret", "wr0ng"), 1)
        try:
            member.gateway.start()
            member.gateway.wait_log("trying again")
            assert "wr0ng" not in member.gateway.log()
        finally:
            member.close()
