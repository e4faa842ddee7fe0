"""The controller's Git repository as a source of versions: `ota.sources.Repository`."""

from teg.adapters.git_repository.repository import GitRepository

__all__ = ["GitRepository"]
