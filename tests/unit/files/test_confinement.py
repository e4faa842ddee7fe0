"""Where a remote file may be: only below a root, and never on the gateway's own files."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teg.domain.errors import Refused
from teg.domain.files.confinement import Root, gateway_own_paths, locate

ROOTS = (Root("/data/controller", "/data/controller"), Root("/link", "/mnt/etc"))
OWN = gateway_own_paths(
    data_path="/data",
    controller_data_path="/data",
    program_path="/opt/teg",
    others=["/data/secret/token", "/data/queue.db"],
)


def test_a_file_below_a_root() -> None:
    place = locate("/data/controller/a/b.txt", ROOTS, ())
    assert (place.parts, place.name, place.path) == (("a", "b.txt"), "b.txt", "/data/controller/a/b.txt")


def test_a_root_that_is_a_link_is_known_by_both_names() -> None:
    assert locate("/link/x", ROOTS, ()).path == "/mnt/etc/x"
    assert locate("/mnt/etc/x", ROOTS, ()).path == "/mnt/etc/x"


def test_the_innermost_root_counts() -> None:
    roots = (Root("/a", "/a"), Root("/a/b", "/elsewhere"))
    assert locate("/a/b/x", roots, ()).path == "/elsewhere/x"


@pytest.mark.parametrize(
    "path",
    [
        "",
        "x",
        "./x",
        "controller/x",
        "~/x",
        "/",
        "/etc/passwd",
        "/data/controller",
        "/data/controller/",
        "/data/controller/.",
        "/data/controllerx/y",
        "/data/controller/../gateway.db",
        "/data/controller/a/../../x",
        "/data/controller/..",
        "/data/controller/a\0b",
        "/data/controller/a\nb",
        "/data/controller/" + "x" * 256,
        "/data/controller/" + "x/" * 2500 + "y",
        "$DATA_PATHX/y",
    ],
)
def test_everything_else_is_refused(path: str) -> None:
    with pytest.raises(Refused):
        locate(path, ROOTS, ())


def test_without_roots_nothing_is_allowed() -> None:
    with pytest.raises(Refused, match="TEG_FILE_ROOTS: none"):
        locate("/x", (), ())


@pytest.mark.parametrize(
    "path",
    [
        "/data/gateway.db",
        "/data/gateway.db-wal",
        "/data/gateway_archive.db",
        "/data/communication_queue.db",
        "/data/communication_queue.db-shm",
        "/data/huey_data/huey.db",
        "/data/huey_data/new/file",
        "/data/secret/token",
        "/data/queue.db-wal",
        "/data/.env",
        "/data/ota/checkouts/x",
        "/data/secret/token.tmp",
        "/data/queue.db",
        "/opt/teg/gateway.py",
        "/opt/teg/json.py",
        "/opt/teg/teg/domain/x",
        "/opt/teg/anything",
    ],
)
def test_the_gateways_own_files_are_refused_inside_a_root(path: str) -> None:
    with pytest.raises(Refused, match="gateway itself"):
        locate(path, (Root("/data", "/data"), Root("/opt/teg", "/opt/teg")), OWN)


@pytest.mark.parametrize("name", ["config.json", "sub/gateway.db", "my_gateway.dbx", "secret/tokens"])
def test_the_controllers_files_beside_them_are_not(name: str) -> None:
    path = f"/data/{name}"
    assert locate(path, (Root("/data", "/data"),), OWN).path == path


def test_a_root_below_the_program_was_chosen_and_is_open() -> None:
    root = Root("/opt/teg/data/controller", "/opt/teg/data/controller")
    assert locate("/opt/teg/data/controller/a.py", (root,), OWN).name == "a.py"
    with pytest.raises(Refused):
        locate("/opt/teg/teg/a.py", (Root("/opt/teg/teg", "/opt/teg/teg"),), OWN)


def test_odd_characters_in_the_gateways_paths_stand_for_themselves() -> None:
    own = gateway_own_paths(data_path="/d[a]*", controller_data_path="/d[a]*", program_path="/p", others=["/d[a]*/t"])
    with pytest.raises(Refused):
        locate("/d[a]*/gateway.db", (Root("/d[a]*", "/d[a]*"),), own)
    assert locate("/da/gateway.db", (Root("/da", "/da"),), own)


@given(st.lists(st.sampled_from(["..", ".", "", "a", "data", "controller", "x\0", "é", " "]), max_size=8).map("/".join))
def test_whatever_is_accepted_lies_below_a_root(path: str) -> None:
    for candidate in (path, "/data/controller/" + path, "/" + path):
        try:
            place = locate(candidate, ROOTS, OWN)
        except Refused:
            continue
        assert place.path.startswith(("/data/controller/", "/mnt/etc/"))
        assert ".." not in place.path.split("/")
