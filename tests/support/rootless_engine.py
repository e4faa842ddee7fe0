"""A Docker Engine that is an ordinary user's (rootless Docker), of Debian's packages: no account of ours is root."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.engine import Engine, own_engine, unavailable
from tests.support.ordinary_user import UID, give

FIRST_ID = 400_000
PROGRAMS = {"rootlesskit": "rootlesskit", "slirp4netns": "slirp4netns", "newuidmap": "uidmap"}
#: The machine's /etc stays as it is, and its /dev/net/tun, which only root may open here.
START = """set -e
cp /etc/passwd /etc/group {over}/upper
echo 'rootless:x:{uid}:{uid}::{home}:/bin/sh' >> {over}/upper/passwd
echo 'rootless:x:{uid}:' >> {over}/upper/group
for file in subuid subgid; do echo 'rootless:{first}:65536' > {over}/upper/$file; done
mount -t overlay overlay -o lowerdir=/etc,upperdir={over}/upper,workdir={over}/work /etc
mknod -m 666 {over}/tun c 10 200
mount --bind {over}/tun /dev/net/tun
export HOME={home} XDG_RUNTIME_DIR={home}/run
exec setpriv --reuid={uid} --regid={uid} --clear-groups --inh-caps=-all -- \
    rootlesskit --state-dir={home}/run/rootlesskit --net=slirp4netns --slirp4netns-sandbox=false \
    --slirp4netns-seccomp=false --disable-host-loopback --copy-up=/etc --copy-up=/run --propagation=rslave \
    sh -c 'rm -rf /run/docker /run/containerd /run/xtables.lock; exec "$@"' sh "$@"
"""


@contextmanager
def rootless_engine(directory: Path) -> Iterator[Engine]:
    """`directory` is given to the user."""
    for program, package in PROGRAMS.items():
        if shutil.which(program) is None:
            unavailable(f"{program} is not installed (package {package})")
    over = directory.with_name(f"{directory.name}-over")
    for part in (over / "upper", over / "work", directory / "run"):
        part.mkdir(parents=True)
    directory.chmod(0o711)
    give(directory)
    script = START.format(uid=UID, first=FIRST_ID, home=directory, over=over)
    prefix = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", script, "rootless"]
    try:
        with own_engine(directory, prefix, ["--rootless"]) as engine:
            yield engine
    finally:
        shutil.rmtree(over)
