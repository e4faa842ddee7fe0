"""What `deploy/fetch-wheels` names by hand is what the gateway needs, so that it installs without a network."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: Fetched for each machine, beside the list.
COMPILED = {"orjson"}


def needed(name: str) -> set[str]:
    """`name` and what it asks for on Linux without extras, and so on."""
    found = {name}
    for requirement in metadata.requires(name) or []:
        wanted, _, condition = requirement.partition(";")
        if "extra" not in condition and "win32" not in condition:
            found |= needed(_name(wanted))
    return found


def _name(requirement: str) -> str:
    return re.split(r"[\s<>=!~\[(;]", requirement.strip(), maxsplit=1)[0].lower().replace("_", "-")


def test_every_library_of_the_gateway_is_fetched() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {name for requirement in project["dependencies"] for name in needed(_name(requirement))}
    listed = re.search(r"for name in ([^;]+);", (ROOT / "deploy" / "fetch-wheels").read_text())
    assert listed is not None
    assert set(listed[1].split()) | COMPILED == wanted
