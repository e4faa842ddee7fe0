"""The controller as a container of a Docker Engine: docker-py behind the port of `domain/controller_runtime.py`."""

from adapters.docker_engine.engine import DockerEngine

__all__ = ["DockerEngine"]
