"""Real Git repositories."""

import subprocess
from pathlib import Path

AUTHOR = ("-c", "user.name=Operator", "-c", "user.email=operator@example.com")


def git(where: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(where), *AUTHOR, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(where: Path, files: dict[str, str], tag: str = "") -> str:
    for name, text in files.items():
        (where / name).parent.mkdir(parents=True, exist_ok=True)
        (where / name).write_text(text)
    git(where, "add", "-A")
    git(where, "commit", "-q", "--allow-empty", "-m", "change")
    if tag:
        git(where, "tag", tag)
    return git(where, "rev-parse", "HEAD")
