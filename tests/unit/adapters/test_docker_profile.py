"""From settings to Docker's host configuration: rights, limits, what the reference's container had. Pure functions."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import orjson
import pytest

from teg.adapters.docker_engine import container_options
from teg.adapters.docker_engine.container_options import disks_of, host_options, not_limited
from teg.adapters.docker_engine.parsing import parse_observation
from teg.domain.errors import Refused
from teg.domain.supervision import container_profile
from teg.domain.supervision.container_profile import (
    ControllerProfile,
    Device,
    Mount,
    Rights,
    encode_rights,
    parse_device,
    parse_mount,
    parse_rights,
)
from teg.settings import KEEPABLE, InvalidSettings, Settings
from tests.support.docker_answers import container


def profile(**options: Any) -> ControllerProfile:
    return ControllerProfile(data_path=Path("/srv/data"), logs_path=Path("/srv/logs"), **options)


# --- rights ------------------------------------------------------------------------------------------------------


def test_the_default_grants_nothing() -> None:
    options = host_options(profile())
    assert options["cap_drop"] == ["ALL"] and options["security_opt"] == ["no-new-privileges"]
    assert "privileged" not in options and options["network_mode"] == "bridge"
    assert options["mem_limit"] == options["memswap_limit"] == 512 << 20 and options["pids_limit"] == 256
    assert options["devices"] == [] and len(options["mounts"]) == 2
    assert options["restart_policy"] == {"Name": "no"}


def test_the_reference_profile_is_the_reference_gateways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_profile, "_exists", lambda path: path != "/bin/pigs")
    options = host_options(profile(privileged=True))
    assert options["privileged"] is True and options["network_mode"] == "host"
    assert not {"cap_drop", "security_opt"} & set(options)
    mounts = {(mount["Source"], mount["Target"], mount["ReadOnly"]) for mount in options["mounts"]}
    assert mounts == {
        ("/srv/data", "/root/data", False),
        ("/srv/logs", "/root/logs", False),
        ("/bin/vcgencmd", "/bin/vcgencmd", True),
        ("/bin/uptime", "/bin/uptime", True),  # /bin/pigs is not there: nothing is created on this host
    }


def test_the_group_of_the_data_directory_is_added(tmp_path: Path) -> None:
    options = host_options(ControllerProfile(data_path=tmp_path, logs_path=tmp_path))
    assert options["group_add"] == [str(tmp_path.stat().st_gid)]


@pytest.mark.parametrize("option", ["name=userns", "name=rootless"])
def test_a_group_of_the_host_means_nothing_to_an_engine_with_accounts_of_its_own(option: str, tmp_path: Path) -> None:
    """The container would not start: setgroups: invalid argument."""
    directories = ControllerProfile(data_path=tmp_path, logs_path=tmp_path)
    assert host_options(directories, None, {"SecurityOptions": ["name=seccomp", option]})["group_add"] == []


@pytest.mark.parametrize(
    "changed",
    [
        {"privileged": True},
        {"network": "host"},
        {"memory_bytes": 1 << 30},
        {"pids": 10},
        {"devices": (Device("/dev/a", "/dev/a", "rwm"),)},
        {"mounts": (Mount("/a", "/b", True),)},
        {"environment": ("A=1",)},
        {"capabilities": ("NET_RAW",)},
        {"cpu_percent": 50},
        {"write_bytes_per_s": 1 << 20},
        {"read_only": True},
        {"user": "1000"},
        {"init": False},
    ],
)
def test_every_setting_changes_the_fingerprint(changed: dict[str, Any]) -> None:
    assert profile(**changed).fingerprint() != profile().fingerprint() == profile().fingerprint()


def test_every_field_is_in_the_fingerprint_or_says_why_not() -> None:
    changed = {field.name for field in fields(ControllerProfile)} - {"data_path", "logs_path", "fixed"}
    assert changed == set(OTHER)
    for name, value in OTHER.items():
        assert f"{name}=" in profile(**{name: value}).canonical()
    assert profile(fixed=frozenset({"pids"})).fingerprint() == profile().fingerprint()


def test_only_real_differences_change_the_fingerprint() -> None:
    one = profile(environment=("A=1", "B=2"), devices=(Device("/dev/a", "/dev/a", "rwm"), Device("/dev/b", "/b", "r")))
    other = profile(
        environment=("B=2", "A=1"), devices=(Device("/dev/b", "/b", "r"), Device("/dev/a", "/dev/a", "rwm"))
    )
    assert one.fingerprint() == other.fingerprint()
    assert profile(pids=256, memory_bytes=512 << 20).canonical() == profile().canonical()


#: Another value than the default for every field that makes a container differ.
OTHER: dict[str, Any] = {
    "privileged": True,
    "network": "host",
    "memory_bytes": 1 << 30,
    "pids": 10,
    "devices": (Device("/dev/a", "/dev/a", "rwm"),),
    "mounts": (Mount("/a", "/b", True),),
    "environment": ("A=1",),
    "capabilities": ("NET_RAW",),
    "cpu_percent": 50,
    "write_bytes_per_s": 1 << 20,
    "read_only": True,
    "user": "1000",
    "init": False,
}


# --- limits ------------------------------------------------------------------------------------------------------


def test_limits_reach_the_engine() -> None:
    options = host_options(profile(cpu_percent=150, write_bytes_per_s=1 << 20, pids=0, memory_bytes=0))
    assert options["nano_cpus"] == 1_500_000_000 and options["cpu_shares"] == 512
    assert not {"mem_limit", "pids_limit"} & set(options), "0 is no limit"
    assert options["init"] is True and options["read_only"] is False and options["tmpfs"] == {}


def test_a_read_only_container_has_somewhere_to_write() -> None:
    options = host_options(profile(read_only=True))
    assert options["read_only"] is True
    assert set(options["tmpfs"]) == {"/tmp", "/run", "/var/tmp"}


def test_a_limit_is_put_on_the_whole_disk() -> None:
    """Of a partition the kernel keeps none; file systems without a disk have none."""
    assert disks_of([Path("/proc"), Path("/does/not/exist")]) == []
    for disk in disks_of([Path(__file__)]):
        assert not (Path("/sys/class/block") / Path(disk).name / "partition").exists()
        assert Path(disk).is_block_device()


ABLE = {"SecurityOptions": ["name=seccomp,profile=default"], "CgroupVersion": "2", "CpuCfsQuota": True}


@pytest.mark.parametrize(
    ("info", "said"),
    [
        ({}, ""),
        ({"MemoryLimit": False}, "memory"),
        ({"PidsLimit": False}, "processes"),
        ({"CpuCfsQuota": False}, "processor time"),
        ({"Warnings": ["WARNING: No blkio throttle.write_bps_device support"]}, "writes to the disk"),
        ({"CgroupVersion": "1"}, "go through the kernel's cache"),
        ({"SecurityOptions": ["name=apparmor"]}, "no seccomp"),
    ],
)
def test_what_an_engine_cannot_limit_is_said(info: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_options, "disks_of", lambda paths: ["/dev/vda"])
    asked = profile(cpu_percent=50, write_bytes_per_s=1)
    found = ", ".join(not_limited(asked, ABLE | info))
    assert said in found and bool(said) == bool(found)
    assert "nano_cpus" not in host_options(asked, None, {"CpuCfsQuota": False}), "the engine would refuse the start"


def test_a_directory_without_a_disk_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_options, "disks_of", lambda paths: [])
    assert not_limited(profile(write_bytes_per_s=1), ABLE) == ["writes to the disk"]


# --- what a container of the reference gateway had ---------------------------------------------------------------


REFERENCE = Rights(
    privileged=True,
    host_network=True,
    capabilities=("SYS_RAWIO",),
    devices=(Device("/dev/i2c-1", "/dev/i2c-1", "rwm"),),
    mounts=(Mount("/bin/vcgencmd", "/bin/vcgencmd", True),),
)


def test_rights_are_kept_and_no_others() -> None:
    kept = profile(environment=("A=1",), cpu_percent=150).loosened(REFERENCE)
    assert kept == profile(
        environment=("A=1",),
        cpu_percent=150,
        privileged=True,
        network="host",
        capabilities=("SYS_RAWIO",),
        devices=REFERENCE.devices,
        mounts=REFERENCE.mounts,
        memory_bytes=0,
        pids=0,
    )
    assert profile().loosened(Rights(memory_bytes=1 << 30, pids=10)) == profile(memory_bytes=1 << 30)


def test_what_the_settings_name_is_not_loosened() -> None:
    fixed = frozenset(KEEPABLE)
    assert profile(fixed=fixed).loosened(REFERENCE) == profile(fixed=fixed)


def test_every_right_that_can_be_kept_can_be_set() -> None:
    changed = {name for name in OTHER if getattr(profile().loosened(REFERENCE), name) != getattr(profile(), name)}
    assert changed == set(KEEPABLE)


def test_rights_survive_being_stored() -> None:
    assert parse_rights(orjson.loads(orjson.dumps(encode_rights(REFERENCE)))) == REFERENCE


@pytest.mark.parametrize("stored", [None, [], {}, {**encode_rights(REFERENCE), "devices": 7}, "privileged"])
def test_what_is_no_such_record_loosens_nothing(stored: Any) -> None:
    assert parse_rights(stored) is None


def test_rights_are_read_from_the_reference_gateways_container() -> None:
    host = {
        "Privileged": True,
        "NetworkMode": "host",
        "CapAdd": ["CAP_SYS_RAWIO", "NET_ADMIN"],
        "Devices": [{"PathOnHost": "/dev/a", "PathInContainer": "/dev/b", "CgroupPermissions": "rw"}],
        "Memory": 0,
        "PidsLimit": None,
    }
    mounts = [
        {"Type": "bind", "Source": "/x", "Destination": "/root/data", "RW": True},
        {"Type": "bind", "Source": "/x/logs", "Destination": "/root/logs", "RW": True},
        {"Type": "bind", "Source": "/usr/bin/uptime", "Destination": "/bin/uptime", "RW": False},
        {"Type": "volume", "Source": "/var/lib/docker/volumes/v", "Destination": "/v", "RW": True},
    ]
    found = container(Image="teg-controller-v1:latest") | {"HostConfig": host, "Mounts": mounts}
    assert parse_observation(found).rights == Rights(
        privileged=True,
        host_network=True,
        capabilities=("SYS_RAWIO", "NET_ADMIN"),
        devices=(Device("/dev/a", "/dev/b", "rw"),),
        mounts=(Mount("/usr/bin/uptime", "/bin/uptime", True),),
    )
    ours = container(Labels={"teg.managed": "1", "teg.version": "v1", "teg.profile": "p"})
    assert parse_observation(ours).rights is None, "our own profile says everything"


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("/a:/b", Mount("/a", "/b", False)),
        ("/a b:/c:ro", Mount("/a b", "/c", True)),
        ("/:/host:rw", Mount("/", "/host", False)),
    ],
)
def test_mounts(text: str, mount: Mount) -> None:
    assert parse_mount(text) == mount


@pytest.mark.parametrize("text", ["", "/a", "a:/b", "/a:b", "/a:/b:xx", "/a:/", "/a:/root/data", "/a:/root/logs:ro"])
def test_mounts_that_are_none(text: str) -> None:
    with pytest.raises(Refused, match="TEG_CONTROLLER_MOUNTS"):
        parse_mount(text)


@pytest.mark.parametrize(
    ("text", "device"),
    [
        ("/dev/i2c-1", Device("/dev/i2c-1", "/dev/i2c-1", "rwm")),
        ("/dev/ttyUSB0:/dev/sensor", Device("/dev/ttyUSB0", "/dev/sensor", "rwm")),
        ("/dev/null:r", Device("/dev/null", "/dev/null", "r")),
        ("/dev/a:/dev/b:rw", Device("/dev/a", "/dev/b", "rw")),
    ],
)
def test_devices(text: str, device: Device) -> None:
    assert parse_device(text) == device


@pytest.mark.parametrize("text", ["", "i2c-1", "/dev/a:b", "/dev/a:/dev/b:x", "/dev/a:/dev/b:rwmm"])
def test_devices_that_are_none(text: str) -> None:
    with pytest.raises(Refused, match="TEG_CONTROLLER_DEVICES"):
        parse_device(text)


REQUIRED = {"TB_HOST": "tb", "TB_PORT": "8843", "TEG_DATA_PATH": "/tmp"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TEG_CONTROLLER_DEVICES", "/dev/a,i2c"),
        ("TEG_CONTROLLER_MOUNTS", "/a:/b:zz"),
        ("TEG_CONTROLLER_MOUNTS", "/a:/root/data"),
        ("TEG_CONTROLLER_ENVIRONMENT", "1X=y"),
        ("TEG_CONTROLLER_RUNTIME", "process"),  # without a command
        ("DOCKER_HOST", "ssh://somewhere"),
    ],
)
def test_wrong_settings_stop_the_start(name: str, value: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        Settings.from_environment({**REQUIRED, name: value})
    assert name in str(caught.value)


def test_right_settings_do_not() -> None:
    settings = Settings.from_environment(
        {
            **REQUIRED,
            "TEG_CONTROLLER_DEVICES": "/dev/i2c-1, /dev/ttyUSB0:/dev/sensor:rw",
            "TEG_CONTROLLER_MOUNTS": "/etc/site:/site:ro",
            "TEG_CONTROLLER_ENVIRONMENT": "A=1,B=x=y",
        }
    )
    assert [parse_device(text).target for text in settings.controller_devices] == ["/dev/i2c-1", "/dev/sensor"]
    assert [parse_mount(text).read_only for text in settings.controller_mounts] == [True]
    assert settings.controller_environment == ("A=1", "B=x=y")
    assert settings.docker_host == "unix:///var/run/docker.sock"
