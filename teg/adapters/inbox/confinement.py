"""What the reader process gives up before it touches a file: layer by layer, the best that the kernel has.

Each layer holds on its own; one that is missing is named and does not keep the others from being put on.
"""

import os
import resource
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from teg.adapters.inbox import kernel, seccomp
from teg.adapters.inbox.rights import NOBODY, Rights, rights_of_root, rights_of_user

_MIB = 1 << 20
#: Python, SQLite and JSON take about 30 MiB of addresses; a batch, its frame and SQLite's cache a few more.
LIMITS = {
    resource.RLIMIT_AS: 256 * _MIB,
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_FSIZE: 64 << 30,
    resource.RLIMIT_MEMLOCK: 0,
    resource.RLIMIT_NOFILE: 16,
    resource.RLIMIT_NPROC: 0,
}
#: Seconds of processor time that one request may take.
CPU_S = 12

Layers = dict[str, str]


def confine(directory_fd: int, file_name: str) -> tuple[Layers, str]:
    """Put on every layer; returns layer → "" when it is in force, else why it is not. The directory becomes ours.

    The second value says why the inbox must not be opened, if so: with whose rights it is depends on what lies there.

    `directory_fd` is closed, the working directory is the directory, and nothing else can be opened from here on.
    """
    layers: Layers = {}
    is_root = os.geteuid() == 0
    rights = _rights(directory_fd, file_name, is_root)
    for stop in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # a service is stopped as a whole: we end after it
        signal.signal(stop, signal.SIG_IGN)
    _prefer_for_oom()
    kernel.forbid_new_privileges()
    if rights.override and not is_root:  # in a user namespace of our own it would not count
        layers["namespaces"] = "the files are another user's"
    else:
        _put_on(layers, "namespaces", lambda: _namespaces(is_root))
    _put_on(layers, "own view of files", lambda: _view(directory_fd, layers["namespaces"] == ""))
    os.umask(0)  # SQLite gives its side files the mode of the database
    for limit, value in LIMITS.items():
        resource.setrlimit(limit, (min(value, hard), min(value, hard)) if (hard := _hard(limit)) >= 0 else (value,) * 2)
    _put_on(layers, "no user", lambda: _drop(is_root, rights))
    if is_root and layers["no user"]:  # everything that root may is more than the owner of the directory may
        rights = rights_of_user(os.fstat(directory_fd), None, 0, can_override=False)
    _put_on(layers, "Landlock", lambda: _landlock())
    _put_on(layers, "system calls", seccomp.deny_syscalls)
    kernel.hide_memory()
    os.close(directory_fd)
    return layers, rights.refusal


def renew_cpu_limit() -> None:
    """At the beginning of each request: a loop without end is ended by the kernel, even if the gateway is gone."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(usage.ru_utime + usage.ru_stime) + CPU_S, hard))
    signal.alarm(CPU_S)


def rest() -> None:
    """A request was answered: none is running, however long the next one takes to come."""
    signal.alarm(0)


def _put_on(layers: Layers, name: str, step: Callable[[], None]) -> None:
    try:
        step()
    except OSError as error:
        layers[name] = error.strerror or str(error)
    else:
        layers[name] = ""


def _rights(directory_fd: int, file_name: str, is_root: bool) -> Rights:
    directory = os.fstat(directory_fd)
    try:
        file = os.stat(file_name, dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        file = None
    if is_root:
        return rights_of_root(directory, file)
    return rights_of_user(directory, file, os.geteuid(), kernel.holds(kernel.CAP_DAC_OVERRIDE))


def _hard(limit: int) -> int:
    return resource.getrlimit(limit)[1]


def _prefer_for_oom() -> None:
    """When memory runs out, this process ends and not the gateway. Not ours to insist on: /proc may be hidden."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _namespaces(is_root: bool) -> None:
    wanted = kernel.CLONE_NEWNS | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
    if is_root:
        return kernel.unshare(wanted)
    user, group = os.geteuid(), os.getegid()
    kernel.unshare(wanted | kernel.CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    return None


def _view(directory_fd: int, own_mounts: bool) -> None:
    """Only the directory; by a change of root where mounts cannot be made."""
    os.fchdir(directory_fd)
    if own_mounts:
        try:
            return kernel.show_only(directory_fd)
        except OSError:
            os.fchdir(directory_fd)  # an older kernel: the plain change of root is as narrow while no right is kept
    os.chroot(".")
    return os.chdir("/")


def _drop(is_root: bool, rights: Rights) -> None:
    """A gateway that is not root stays who it is; it may be able to empty what the controller's container made."""
    capabilities = (kernel.CAP_DAC_OVERRIDE,) if rights.override else ()
    if is_root:
        return kernel.become(NOBODY, NOBODY, rights.user, rights.group, capabilities)
    return kernel.set_capabilities(*capabilities)


def _landlock() -> None:
    here = os.open(".", os.O_PATH | os.O_DIRECTORY)
    try:
        kernel.landlock(here)
    finally:
        os.close(here)
