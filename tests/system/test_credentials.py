"""A gateway whose device has no access token: MQTT basic and X.509, made by hand and provisioned."""

from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from teg.simulator.thingsboard.server import ThingsBoard
from teg.simulator.thingsboard.tls import ServerTls
from tests.support.client_certificates import issue
from tests.support.running import ControllerInbox, RunningGateway, measurements, message

BASIC = {"TB_MQTT_CLIENT_ID": "client-1", "TB_MQTT_USER": "user-1", "TB_MQTT_PASSWORD": "pa55-s3cret"}


class Place:
    """A server with TLS, and a gateway without a token."""

    def __init__(self, path: Path, stack: ExitStack, **settings: str) -> None:
        tls = ServerTls.create(path / "tls", ["localhost"])
        self.server = stack.enter_context(ThingsBoard(tls=tls))
        secure = {"TB_TLS": "on", "THINGSBOARD_CA_CERT": str(tls.ca_file), "THINGSBOARD_ACCESS_TOKEN": ""}
        self.gateway = RunningGateway(path / "site", "localhost", self.server.port, "", **secure, **settings)
        self.inbox = stack.enter_context(closing(ControllerInbox(self.gateway.inbox_path)))

    def wait_stored(self, rows: int) -> None:
        device = self.server.wait_for_device("pi-07", 30)
        device.wait_for(lambda d: sum(key == "n" for key, _ in d.telemetry()) >= rows, 60, f"{rows} records")


@pytest.mark.parametrize("kind", ["basic", "certificate"])
def test_records_arrive_and_a_restart_finds_its_device_again(tmp_path: Path, kind: str) -> None:
    """Provisioned at the first start, and not asked for again."""
    pair = issue(tmp_path / "pair")
    settings = BASIC if kind == "basic" else pair.settings
    keys = {f"THINGSBOARD_PROVISION_DEVICE_{name}": name for name in ("KEY", "SECRET")}
    with ExitStack() as stack:
        place = Place(tmp_path, stack, **settings, **keys, THINGSBOARD_DEVICE_NAME="pi-07")
        if kind == "certificate":  # ThingsBoard takes any certificate in the handshake
            place.server.trust_client(pair.pem)
        place.server.provisioning.allow("KEY", "SECRET")
        for first in (1, 101):
            with place.gateway:
                place.inbox.insert_many(message(number) for number in range(first, first + 100))
                place.wait_stored(first + 99)
                assert place.gateway.stop() == 0
        place.server.device("pi-07").assert_each_stored_once(measurements(1, 200))
        assert len(place.server.provisioning.requests) == 1
        assert not place.gateway.token_path.exists()
        assert "s3cret" not in place.gateway.log()


def test_a_certificate_that_no_device_has_is_said(tmp_path: Path) -> None:
    pair = issue(tmp_path / "pair")
    with ExitStack() as stack:
        place = Place(tmp_path, stack, **pair.settings)
        place.server.trust_client(pair.pem)
        place.server.add_device("other", token="T1")
        with place.gateway:
            place.gateway.wait_log("the server has no device with this client certificate (CONNACK 5)")
            place.server.add_certificate_device("pi-07", pair.pem).wait_connected(30)
