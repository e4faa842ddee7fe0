"""The controller as a container of a Docker Engine: docker-py behind `supervision.runtime.ControllerRuntime`."""

from teg.adapters.docker_engine.images import BuildRules
from teg.adapters.docker_engine.runtime import DockerEngine

__all__ = ["BuildRules", "DockerEngine"]
