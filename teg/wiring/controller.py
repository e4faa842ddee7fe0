"""The parts around the controller: what runs it, who supervises it, how its software is updated."""

import logging
import threading
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from tasks.ota import advance_update
from teg.adapters.gateway_db.state import StateTable
from teg.adapters.gateway_db.telemetry_keys import ArchivedKeys
from teg.adapters.git_repository import GitRepository
from teg.adapters.package_store import PackagesOnDisk
from teg.adapters.process_runtime import ProcessRuntime
from teg.domain.ota.assignment import Source
from teg.domain.ota.rollout import Replacement, TrialRules
from teg.domain.ota.sources import GitSource, PackageSource, RegistrySource, SoftwareSource
from teg.domain.ota.store import UpdateStore
from teg.domain.ota.updater import AcceptRules, NoUpdates, SoftwareUpdate
from teg.domain.supervision.container_profile import ControllerProfile, parse_device, parse_mount
from teg.domain.supervision.runtime import ControllerRuntime
from teg.domain.supervision.supervisor import NoController, Supervisor
from teg.domain.supervision.version import ControllerVersion
from teg.settings import Settings
from teg.wiring.core import CoreParts

logger = logging.getLogger("gateway")

#: The version of a controller that is a command of the settings (TEG_CONTROLLER_RUNTIME=process).
LOCAL_VERSION = "local"


class ControllerParts(CoreParts):
    """All of it is absent with TEG_CONTROLLER_RUNTIME=none."""

    @cached_property
    def runtime(self) -> ControllerRuntime | None:
        makers: dict[str, Callable[[], ControllerRuntime]] = {
            "process": self._process_runtime,
            "docker": self._docker_runtime,
        }
        maker = makers.get(self._settings.controller_runtime)
        if maker is None:
            return None
        runtime = maker()
        self._stack.callback(runtime.close)
        return runtime

    def _process_runtime(self) -> ControllerRuntime:
        settings = self._settings
        return ProcessRuntime(
            settings.controller_command or "",
            settings.data_path / "controller_process",
            data_path=settings.controller_data_path,
            logs_path=settings.controller_logs_path,
            own_version=settings.default_controller_version or LOCAL_VERSION,
            environment=settings.controller_environment,
        )

    def _docker_runtime(self) -> ControllerRuntime:
        from teg.adapters.docker_engine import DockerEngine  # here: its libraries are a sixth of the memory

        return DockerEngine(self._settings.docker_host, _controller_profile(self._settings))

    @cached_property
    def supervisor(self) -> Supervisor | NoController:
        if self.runtime is None:
            return NoController()
        return Supervisor(
            runtime=self.runtime,
            heartbeat=self.inbox,
            state=self.state,
            report=self.reporter,
            clock=self.clock,
            versions=_controller_version(self._settings, self.state),
            health_limit_s=self._settings.health_limit_s,
            start_grace_s=self._settings.start_grace_s,
        )

    @cached_property
    def ota(self) -> SoftwareUpdate | NoUpdates:
        if self.runtime is None or not isinstance(self.supervisor, Supervisor):
            return NoUpdates()
        settings = self._settings
        updates = UpdateStore(self.state, self.reporter, self.runtime, self.supervisor)
        return SoftwareUpdate(
            records=updates,
            replacement=self._replacement(updates, self.runtime, self.supervisor),
            sources=self._software_sources(self.runtime),
            runtime=self.runtime,
            hand=self.supervisor,
            clock=self.clock,
            rules=AcceptRules(registries=settings.ota_registries, signed_only=settings.ota_require_signature),
            stopping=self.stopping,
            wake=lambda: advance_update(),
        )

    def _replacement(self, updates: UpdateStore, runtime: ControllerRuntime, supervisor: Supervisor) -> Replacement:
        keys = ArchivedKeys(self.database) if self._settings.ota_require_keys else None
        return Replacement(
            runtime=runtime,
            versions=supervisor,
            heartbeat=self.inbox,
            records=updates,
            clock=self.clock,
            rules=TrialRules(trial_s=self._settings.ota_trial_s, keys=keys),
            pause=self.stopping.wait,
        )

    def _software_sources(self, runtime: ControllerRuntime) -> dict[Source, SoftwareSource]:
        directory = self._settings.data_path / "ota"
        repository = _controller_repository(self._settings, directory / "checkouts", self.stopping)
        return {
            Source.GIT: GitSource(repository, runtime, self._settings.ota_require_signature),
            Source.REGISTRY: RegistrySource(runtime),
            Source.PACKAGE: PackageSource(self.session, PackagesOnDisk(directory / "packages"), runtime),
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
    )


def _controller_profile(settings: Settings) -> ControllerProfile:
    if settings.controller_privileged:
        logger.warning("TEG_CONTROLLER_PRIVILEGED=on: the controller may do everything that this machine can")
    return ControllerProfile(
        data_path=settings.controller_data_path,
        logs_path=settings.controller_logs_path,
        memory_bytes=settings.controller_memory_bytes,
        pids=settings.controller_pids,
        privileged=settings.controller_privileged,
        network=settings.controller_network,
        devices=tuple(map(parse_device, settings.controller_devices)),
        mounts=tuple(map(parse_mount, settings.controller_mounts)),
        environment=settings.controller_environment,
    )


def _controller_version(settings: Settings, state: StateTable) -> ControllerVersion:
    default = settings.default_controller_version
    if settings.controller_runtime == "process":
        default = default or LOCAL_VERSION
    return ControllerVersion(state, settings.data_path / "last_launched_controller_version.txt", default)
