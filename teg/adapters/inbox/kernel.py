"""The kernel's calls for confining a process, which Python (3.11) has no names for. Every failure is an OSError.

Numbers from 424 on are the same on every architecture that Linux runs Python on; the older ones stand per machine.
Sources: namespaces(7), landlock(7), mount_setattr(2), seccomp(2), capabilities(7).
"""

import ctypes
import os
import platform
import struct

_libc = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWNET = (
    0x00020000,
    0x04000000,
    0x08000000,
    0x10000000,
    0x40000000,
)
CAP_SETUID, CAP_DAC_OVERRIDE = 7, 1
_MS_REC, _MS_PRIVATE, _MNT_DETACH = 0x4000, 1 << 18, 2
_AT_EMPTY_PATH, _OPEN_TREE_CLONE, _MOVE_MOUNT_EMPTY_PATHS = 0x1000, 1, 0x4 | 0x40
_MOUNT_ATTR_NOSUID, _MOUNT_ATTR_NODEV, _MOUNT_ATTR_NOEXEC = 2, 4, 8
_PR_SET_DUMPABLE, _PR_SET_KEEPCAPS, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 4, 8, 24, 38
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "armv7l": 218, "armv6l": 218, "i686": 217, "riscv64": 41}

#: Landlock's rights to files: all that an ABI knows are handled, these are given back below the directory.
_FS_RIGHTS_OF_ABI = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_FILE, _MAKE_REG, _TRUNCATE = (1 << bit for bit in (1, 2, 3, 5, 8, 14))


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _syscall(what: str, number: int, *arguments: object) -> int:
    return _checked(_libc.syscall(ctypes.c_long(number), *arguments), what)


def prctl(what: str, option: int, *arguments: object) -> None:
    padding = [ctypes.c_ulong(0)] * (4 - len(arguments))
    _checked(_libc.prctl(option, *arguments, *padding), what)


def unshare(flags: int) -> None:
    _checked(_libc.unshare(flags), "unshare")


def show_only(directory_fd: int) -> None:
    """In a mount namespace of our own: the directory becomes all there is, without devices, set-uid or programs."""
    _checked(_libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None), "mount")
    tree = _syscall("open_tree", _OPEN_TREE, directory_fd, b"", _OPEN_TREE_CLONE | _AT_EMPTY_PATH | os.O_CLOEXEC)
    attributes = struct.pack("=QQQQ", _MOUNT_ATTR_NOSUID | _MOUNT_ATTR_NODEV | _MOUNT_ATTR_NOEXEC, 0, 0, 0)
    length = ctypes.c_size_t(len(attributes))
    _syscall("mount_setattr", _MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, attributes, length)
    _syscall("move_mount", _MOVE_MOUNT, tree, b"", directory_fd, b"", _MOVE_MOUNT_EMPTY_PATHS)
    os.fchdir(tree)
    os.close(tree)
    if (pivot_root := _PIVOT_ROOT.get(platform.machine())) is None:
        raise OSError(f"pivot_root has no known number on {platform.machine()}")
    _syscall("pivot_root", pivot_root, b".", b".")
    _checked(_libc.umount2(b".", _MNT_DETACH), "umount2")
    os.chdir("/")


def forbid_new_privileges() -> None:
    prctl("no_new_privs", _PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1))


def hide_memory() -> None:
    """No core dump, no ptrace, no /proc/<pid> of ours for processes of the same user."""
    prctl("dumpable", _PR_SET_DUMPABLE, ctypes.c_ulong(0))


def set_capabilities(*capabilities: int) -> None:
    """Exactly these stay, effective and permitted."""
    mask = sum(1 << capability for capability in capabilities)
    header = struct.pack("=Ii", 0x20080522, 0)
    data = struct.pack("=IIIIII", mask & 0xFFFFFFFF, mask & 0xFFFFFFFF, 0, mask >> 32, mask >> 32, 0)
    _checked(_libc.capset(header, data), "capset")


def holds(capability: int) -> bool:
    """Whether we may use it: root, a service with AmbientCapabilities, a program with a file capability."""
    header, data = struct.pack("=Ii", 0x20080522, 0), ctypes.create_string_buffer(24)
    _checked(_libc.capget(header, data), "capget")
    _, low, _, _, high, _ = struct.unpack("=6I", data.raw)
    return bool((low | high << 32) >> capability & 1)


def become(user: int, group: int, file_user: int, file_group: int, capabilities: tuple[int, ...]) -> None:
    """From root to `user`, who is nobody to other processes, while files are opened and made as `file_user`.

    The file system user id (setfsuid(2)) is made for this: it gives no right to signal or trace the processes of
    `file_user`, which may be root.
    """
    for number in range(64):
        if _libc.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(number), *[ctypes.c_ulong(0)] * 3) < 0:
            break
    os.setgroups([])
    os.setresgid(group, group, group)
    _libc.setfsgid(file_group)
    prctl("keepcaps", _PR_SET_KEEPCAPS, ctypes.c_ulong(1))
    os.setresuid(user, user, user)
    set_capabilities(CAP_SETUID, *capabilities)
    _libc.setfsuid(file_user)
    set_capabilities(*capabilities)
    if (_libc.setfsuid(-1), _libc.setfsgid(-1), os.getuid()) != (file_user, file_group, user):
        raise OSError("setfsuid: not permitted")


def landlock_abi() -> int:
    """0 when the kernel has none."""
    return max(0, int(_libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1)))


def landlock(directory_fd: int) -> str:
    """No file outside of the directory, no TCP (ABI 4), no signal to outside (ABI 6). Returns what was had."""
    abi = landlock_abi()
    if not abi:
        raise OSError("the kernel has no Landlock")
    rights = (1 << _FS_RIGHTS_OF_ABI.get(abi, 16)) - 1
    attributes = struct.pack("=QQQ", rights, 3, 3)[: 8 if abi < 4 else 16 if abi < 6 else 24]
    size = ctypes.c_size_t(len(attributes))
    ruleset = _syscall("landlock_create_ruleset", _LANDLOCK_CREATE, attributes, size, 0)
    try:
        given = _WRITE_FILE | _READ_FILE | _READ_DIR | _REMOVE_FILE | _MAKE_REG | _TRUNCATE
        rule = struct.pack("=Qi", given & rights, directory_fd)
        _syscall("landlock_add_rule", _LANDLOCK_ADD, ruleset, 1, rule, 0)
        _syscall("landlock_restrict_self", _LANDLOCK_RESTRICT, ruleset, 0)
    finally:
        os.close(ruleset)
    return f"ABI {abi}"
