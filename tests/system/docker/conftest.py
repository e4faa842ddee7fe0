"""A clean engine, the runtime on it, and a container that is not ours."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from docker.errors import APIError

from teg.adapters.docker_engine import DockerEngine
from tests.support.docker_runtime import make_runtime
from tests.support.engine import BASE_IMAGE, Engine, closing_client, make_container, make_image, write_context


@pytest.fixture
def at(clean_engine: Engine) -> Engine:
    return clean_engine


@pytest.fixture
def runtime(at: Engine, tmp_path: Path) -> Iterator[DockerEngine]:
    made = make_runtime(at, tmp_path)
    yield made
    made.close()


@pytest.fixture
def foreign(at: Engine, tmp_path: Path) -> Iterator[dict[str, str]]:
    """A stopped container, an image nobody uses, and a dangling one, as another program would leave them."""
    context = write_context(tmp_path / "foreign", "print('foreign')\n")
    image = make_image(at, "foreign/thing:1", context)
    context = write_context(tmp_path / "foreign", "print('dangling')\n")
    dangling = make_image(at, "foreign/dangling:1", context)
    with closing_client(at.client) as client:
        client.tag(image, "foreign/dangling", "1")
        made = {
            "container": make_container(at, "foreign_stopped", BASE_IMAGE, command="true"),
            "image": image,
            "dangling": dangling,
        }
        yield made
        with suppress(APIError):
            client.remove_container("foreign_stopped", force=True)
        for name in ("foreign/thing:1", "foreign/dangling:1", dangling):
            with suppress(APIError):
                client.remove_image(name, force=True)
