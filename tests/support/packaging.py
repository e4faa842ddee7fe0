"""What an installation is made of, built once a run: our wheel, and the wheels it needs."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.engine import cache_path
from tests.support.running import PROJECT


def needs(program: str) -> None:
    if shutil.which(program) is None:
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(f"{program} is not installed")
        pytest.skip(f"{program} is not installed")


def _what_is_needed() -> str:
    """Changes with our dependencies and their versions: wheels of another day are not those of today."""
    named = [(PROJECT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt", "deploy/fetch-wheels")]
    return hashlib.sha256(b"".join(named)).hexdigest()[:12]


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our wheel as it is now; what it needs from the package index once a machine, for this Debian's Python alone."""
    kept = cache_path() / f"wheels-cp311-{_what_is_needed()}"
    found = tmp_path_factory.mktemp("wheels")
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", found, PROJECT], check=True, timeout=300)
    if not kept.exists():
        unfinished = kept.with_name(f"wheels-{os.getpid()}")
        target = [
            "--only-binary=:all:",
            "--implementation=cp",
            "--python-version=311",
            "--platform=manylinux_2_17_x86_64",
        ]
        ours = str(next(found.glob("teg_gateway-*.whl")))
        command = [
            *pip,
            "download",
            *target,
            "--constraint",
            PROJECT / "constraints.txt",
            "-d",
            unfinished,
            "pip",
            ours,
        ]
        subprocess.run(command, check=True, timeout=300)
        for wheel in unfinished.glob("teg_gateway-*"):
            wheel.unlink()
        unfinished.rename(kept)
    for wheel in kept.iterdir():
        shutil.copy(wheel, found)
    return found


@pytest.fixture(scope="session")
def wheels_with_redis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `deploy/fetch-wheels` fetches them for every machine; once a machine and version of what is needed."""
    kept = cache_path() / f"wheels-redis-{_what_is_needed()}"
    if not kept.exists():
        unfinished = kept.with_name(f"wheels-redis-{os.getpid()}")
        fetch = [PROJECT / "deploy" / "fetch-wheels", unfinished]
        subprocess.run(fetch, check=True, timeout=1000, env={**os.environ, "TEG_EXTRAS": "redis"})
        unfinished.rename(kept)
    found = tmp_path_factory.mktemp("wheels-redis")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "wheel", "--no-deps"]
    for wheel in kept.iterdir():
        shutil.copy(wheel, found) if not wheel.name.startswith("teg_gateway-") else None
    subprocess.run([*pip, "--no-build-isolation", "-w", found, PROJECT], check=True, timeout=300)
    return found
