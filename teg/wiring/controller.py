"""The parts around the controller: what runs it, who supervises it, how its software is updated."""

import logging
import os
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tasks.ota import advance_update
from teg.adapters.gateway_db.state import StateTable
from teg.adapters.git_repository import GitRepository
from teg.adapters.package_store import PackagesOnDisk
from teg.adapters.process_runtime import ProcessRuntime
from teg.adapters.ssh_signatures import SshSignatures
from teg.domain.ota.assignment import AcceptRules, Source
from teg.domain.ota.rollout import Replacement, TrialRules
from teg.domain.ota.sources import GitSource, PackageSource, RegistrySource, SoftwareSource
from teg.domain.ota.store import PREVIOUS_KEY, UpdateStore
from teg.domain.ota.updater import NoUpdates, SoftwareUpdate
from teg.domain.ports import Clock
from teg.domain.supervision.container_profile import ControllerProfile, parse_device, parse_mount
from teg.domain.supervision.image_ids import ImageIds
from teg.domain.supervision.runtime import ControllerRuntime
from teg.domain.supervision.supervisor import NoController, Supervisor
from teg.domain.supervision.version import ControllerVersion
from teg.settings import Settings
from teg.wiring.server import ServerSide
from teg.wiring.storage import Storage

logger = logging.getLogger("gateway")

#: The version of a controller that is a command of the settings (TEG_CONTROLLER_RUNTIME=process).
LOCAL_VERSION = "local"


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerSide:
    """`runtime` is None with TEG_CONTROLLER_RUNTIME=none; the others then do nothing."""

    runtime: ControllerRuntime | None
    supervisor: Supervisor | NoController
    updates: SoftwareUpdate | NoUpdates


def build_controller_side(
    settings: Settings, stack: ExitStack, storage: Storage, server: ServerSide, clock: Clock, stopping: threading.Event
) -> ControllerSide:
    runtime = _runtime(settings, stack, storage.state)
    if runtime is None:
        return ControllerSide(runtime=None, supervisor=NoController(), updates=NoUpdates())
    supervisor = Supervisor(
        runtime=runtime,
        heartbeat=storage.inbox,
        state=storage.state,
        report=server.reporter,
        clock=clock,
        versions=_controller_version(settings, storage.state),
        health_limit_s=settings.health_limit_s,
        start_grace_s=settings.start_grace_s,
    )
    updates = _software_update(settings, storage, server, clock, stopping, runtime, supervisor)
    return ControllerSide(runtime=runtime, supervisor=supervisor, updates=updates)


def _runtime(settings: Settings, stack: ExitStack, state: StateTable) -> ControllerRuntime | None:
    if settings.controller_runtime == "none":
        return None
    runtime = _process(settings) if settings.controller_runtime == "process" else _docker(settings, state)
    stack.callback(runtime.close)
    return runtime


def _process(settings: Settings) -> ControllerRuntime:
    return ProcessRuntime(
        settings.controller_command or "",
        settings.data_path / "controller_process",
        data_path=settings.controller_data_path,
        logs_path=settings.controller_logs_path,
        own_version=settings.default_controller_version or LOCAL_VERSION,
        environment=settings.controller_environment,
    )


def _docker(settings: Settings, state: StateTable) -> ControllerRuntime:
    from teg.adapters.docker_engine import BuildRules, DockerEngine  # here: its libraries are a sixth of the memory

    rules = BuildRules(network=settings.ota_build_network, memory_bytes=settings.ota_build_memory_bytes)
    ids = _image_ids(settings, state)
    return DockerEngine(settings.docker_host, _controller_profile(settings), ids, rules, settings.private_paths)


def _image_ids(settings: Settings, state: StateTable) -> ImageIds:
    """By name only what this device ran before ids were kept, and the version that its own settings name."""
    known = (_controller_version(settings, state).committed(), state.get(PREVIOUS_KEY))
    return ImageIds(state, [version for version in known if isinstance(version, str)])


def _software_update(
    settings: Settings,
    storage: Storage,
    server: ServerSide,
    clock: Clock,
    stopping: threading.Event,
    runtime: ControllerRuntime,
    supervisor: Supervisor,
) -> SoftwareUpdate:
    store = UpdateStore(storage.state, server.reporter, runtime, supervisor)
    keys = storage.telemetry_keys if settings.ota_require_keys else None
    rollout = Replacement(
        runtime=runtime,
        controller=supervisor,
        heartbeat=storage.inbox,
        records=store,
        clock=clock,
        rules=TrialRules(trial_s=settings.ota_trial_s, keys=keys),
        pause=stopping.wait,
    )
    return SoftwareUpdate(
        records=store,
        replacement=rollout,
        sources=_software_sources(settings, server, runtime, stopping),
        runtime=runtime,
        controller=supervisor,
        clock=clock,
        rules=AcceptRules(
            registries=settings.ota_registries,
            signed_only=settings.ota_require_signature,
            digest_only=settings.ota_require_digest,
        ),
        stopping=stopping,
        wake=advance_update,
    )


def _software_sources(
    settings: Settings, server: ServerSide, runtime: ControllerRuntime, stopping: threading.Event
) -> dict[Source, SoftwareSource]:
    directory = settings.data_path / "ota"
    repository = _controller_repository(settings, directory / "checkouts", stopping)
    signatures = SshSignatures(settings.ota_allowed_signers) if settings.ota_require_signature else None
    return {
        Source.GIT: GitSource(repository, runtime, settings.ota_require_signature),
        Source.REGISTRY: RegistrySource(runtime, signatures),
        Source.PACKAGE: PackageSource(server.session, PackagesOnDisk(directory / "packages"), runtime, signatures),
    }


def _controller_repository(settings: Settings, checkouts: Path, stopping: threading.Event) -> GitRepository | None:
    if settings.controller_git_path is None:
        return None
    return GitRepository(
        settings.controller_git_path,
        settings.controller_docker_context,
        settings.controller_dockerfile,
        checkouts,
        stopping=stopping.is_set,
        signers=settings.ota_allowed_signers,
        proxy_url=settings.connection.proxy_url,
    )


def _controller_profile(settings: Settings) -> ControllerProfile:
    if settings.controller_privileged:
        logger.warning("TEG_CONTROLLER_PRIVILEGED=on: the controller may do everything that this machine can")
    return ControllerProfile(
        data_path=Path(os.path.realpath(settings.controller_data_path)),
        logs_path=Path(os.path.realpath(settings.controller_logs_path)),
        memory_bytes=settings.controller_memory_bytes,
        pids=settings.controller_pids,
        privileged=settings.controller_privileged,
        network=settings.controller_network,
        devices=tuple(map(parse_device, settings.controller_devices)),
        mounts=tuple(map(parse_mount, settings.controller_mounts)),
        environment=settings.controller_environment,
        capabilities=settings.controller_capabilities,
        cpu_percent=settings.controller_cpu_percent,
        write_bytes_per_s=settings.controller_write_bytes_per_s,
        read_only=settings.controller_read_only,
        user=settings.controller_user,
        init=settings.controller_init,
        fixed=settings.controller_fixed,
    )


def _controller_version(settings: Settings, state: StateTable) -> ControllerVersion:
    default = settings.default_controller_version
    if settings.controller_runtime == "process":
        default = default or LOCAL_VERSION
    return ControllerVersion(state, settings.data_path / "last_launched_controller_version.txt", default)
