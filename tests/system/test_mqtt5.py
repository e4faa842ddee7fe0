"""A gateway that speaks MQTT 5: the same promises, and the server's reasons in the log and in `status`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from teg.adapters.mqtt_session import MqttSession, MQTTv5, Server
from teg.simulator.thingsboard.faults import when
from teg.simulator.thingsboard.server import ThingsBoard
from tests.support.running import wait_until
from tests.support.site import Site, running_site


@pytest.fixture
def server() -> Iterator[ThingsBoard]:
    with ThingsBoard(packet_log=0) as server:
        yield server


@pytest.fixture
def site(tmp_path: Path, server: ThingsBoard) -> Iterator[Site]:
    with running_site(tmp_path, server, TB_MQTT_VERSION="auto") as site:
        yield site


def test_one_record_that_the_server_refuses_is_set_aside_and_all_others_arrive(site: Site, server: ThingsBoard) -> None:
    assert site.device.sessions[0].version == 5
    server.faults.poison = when(lambda publish: b'"n": 57}' in publish.payload)
    site.record(100)
    site.device.wait_for(lambda _: site.stored() == 99, 60, "the others are there")
    wait_until(lambda: len(site.dead_letters()) == 1, 60, "the culprit is set aside")
    assert b'"n": 57}' in site.dead_letters()[0][0]
    assert "closed by the server: " in site.gateway.log(), "with its reason"
    assert site.gateway.stop() == 0


def test_a_second_user_of_the_token_is_named_at_once_and_shown(site: Site, server: ThingsBoard) -> None:
    other = MqttSession(
        Server(server.host, server.port, None, versions=(MQTTv5,)), lambda: "T1", lambda *_: None, lambda: None
    )
    other.start()
    wait_until(lambda: other.connected, 15, "the other one is connected")
    other.stop()
    site.gateway.wait_log("the server says that another session took its place")
    site.device.wait_for(lambda device: device.subscriptions, 60, "the gateway is back")
    status = site.device.rpc("status", timeout_s=20).response
    assert '"second_user_of_our_token":"certainly"' in str(status).replace("'", '"').replace(": ", ":")
