"""The controller: what runs it, and when to start or stop it. What other subjects use of it stands here."""

from teg.domain.supervision.policy import exit_reason
from teg.domain.supervision.runtime import ControllerRuntime, ImageMissing, Observation
from teg.domain.supervision.version import reported_version

__all__ = ["ControllerRuntime", "ImageMissing", "Observation", "exit_reason", "reported_version"]
