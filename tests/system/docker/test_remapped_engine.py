"""An engine whose containers' users are not the host's (`userns-remap`), as docs/security.md sets it up."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.engine import Engine, closing_client, own_engine
from tests.support.ota_device import OtaDevice, ota_device

pytestmark = [
    pytest.mark.docker,
    pytest.mark.torture,
    pytest.mark.skipif(os.geteuid() != 0, reason="an engine of our own needs root"),
]

FIRST_ID = 300_000


@pytest.fixture
def engine() -> Iterator[Engine]:
    """The machine's /etc stays as it is: the engine sees one of its own, laid over it."""
    with tempfile.TemporaryDirectory(prefix="teg-map-") as name:
        directory = Path(name)
        directory.chmod(0o711)
        for part in ("over", "over/upper", "over/work"):
            (directory / part).mkdir()
        for file in ("subuid", "subgid"):
            (directory / "over" / "upper" / file).write_text(f"nobody:{FIRST_ID}:65536\n")
        layers = f"lowerdir=/etc,upperdir={name}/over/upper,workdir={name}/over/work"
        shell = f'mount -t overlay overlay -o {layers} /etc && exec "$@"'
        prefix = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", shell, "remapped"]
        with own_engine(directory, prefix, ["--userns-remap=nobody:nogroup"]) as engine:
            yield engine


@pytest.fixture
def device(tmp_path: Path, engine: Engine) -> Iterator[OtaDevice]:
    logs = tmp_path / "controller-logs"
    with ota_device(tmp_path, engine, TEG_CONTROLLER_LOGS_PATH=str(logs)) as device:
        yield device


def test_the_controller_is_nobody_on_the_host_and_everything_else_is_as_ever(tmp_path: Path, device: OtaDevice) -> None:
    for name in ("controller", "controller-logs"):
        (tmp_path / name).mkdir(exist_ok=True)
        os.chown(tmp_path / name, FIRST_ID, FIRST_ID)
    device.assign("v1")
    device.wait_told("UPDATED", "v1")
    device.wait_measured("v1")
    with closing_client(device.engine.client) as client:
        pid = client.inspect_container("teg_controller")["State"]["Pid"]
    owners = {line.split(":")[0]: line.split()[1:] for line in Path(f"/proc/{pid}/status").read_text().splitlines()}
    assert set(owners["Uid"]) == set(owners["Gid"]) == {str(FIRST_ID)}
    assert device.gateway.inbox_path.stat().st_uid == FIRST_ID
    assert device.gateway.data_path.stat().st_uid == 0
    device.assign("v3")
    device.wait_told("FAILED", "v1")
    device.wait_measured("v1")
