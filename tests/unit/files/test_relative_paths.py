"""A relative path is below the controller's folder, and nowhere else."""

import pytest

from teg.domain.errors import Refused
from teg.domain.files.confinement import Root, locate
from teg.domain.files.definitions import parse_definition


@pytest.mark.parametrize("path", ["config/site.txt", "./config/site.txt", "$DATA_PATH/config/site.txt"])
def test_it_means_the_controllers_folder(path: str) -> None:
    assert parse_definition("cfg", {"path": path}, "/srv/controller").path == "/srv/controller/config/site.txt"


@pytest.mark.parametrize("path", ["../gateway.db", "config/../../token", "..", ".", "communication_queue.db"])
def test_it_leads_nowhere_else(path: str) -> None:
    found = parse_definition("cfg", {"path": path}, "/srv/controller").path
    protected = ["/srv/controller/communication_queue.db*"]
    with pytest.raises(Refused):
        locate(found, [Root("/srv/controller", "/srv/controller")], protected)
