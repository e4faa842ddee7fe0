"""A failing disk, or a missing program, as `Unavailable`."""

from collections.abc import Iterator
from contextlib import contextmanager

from teg.domain.errors import Unavailable


@contextmanager
def disk(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(f"{what}: {error}") from error
