"""seccomp: system calls that a reader of one database never makes, and that are refused to it (seccomp(2)).

A list of what is forbidden, not of what is allowed: a C library that begins to use a new call must not stop telemetry.
"""

import ctypes
import platform
import struct
from collections.abc import Mapping

from teg.adapters.inbox.kernel import prctl

_PR_SET_SECCOMP, _FILTER = 22, 2
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
#: name → numbers on (x86_64, aarch64): processes, signals, sockets, mounts, links, keys, the kernel's other doors.
DENIED: Mapping[str, tuple[int, int | None]] = {
    "execve": (59, 221),
    "execveat": (322, 281),
    "fork": (57, None),
    "vfork": (58, None),
    "clone": (56, 220),
    "clone3": (435, 435),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, None),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "link": (86, None),
    "linkat": (265, 37),
    "memfd_create": (319, 279),
    "personality": (135, 92),
    "finit_module": (313, 273),
    "init_module": (175, 105),
    "kexec_load": (246, 104),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
}
_LOAD, _EQUAL, _AT_LEAST, _ANSWER = 0x20, 0x15, 0x35, 0x06
_ALLOW, _NOT_PERMITTED, _KILL = 0x7FFF0000, 0x00050001, 0x80000000


def deny_syscalls() -> None:
    """The calls above fail with EPERM, those of another architecture kill. Raises OSError."""
    if platform.machine() not in _ARCHITECTURES:
        raise OSError(f"no numbers of system calls for {platform.machine()}")
    column, architecture = _ARCHITECTURES[platform.machine()]
    program = _program(architecture, [number for row in DENIED.values() if (number := row[column]) is not None])
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
    prctl("seccomp", _PR_SET_SECCOMP, ctypes.c_ulong(_FILTER), struct.pack("@HP", len(program), ctypes.addressof(code)))


def _program(architecture: int, denied: list[int]) -> list[tuple[int, int, int, int]]:
    """Steps (code, jump if true, jump if false, operand) of classic BPF."""
    return [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 1, 0, architecture),
        (_ANSWER, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),
        (_AT_LEAST, len(denied) + 1, 0, 0x40000000),  # x32, which shares the architecture's name
        *((_EQUAL, len(denied) - position, 0, number) for position, number in enumerate(denied)),
        (_ANSWER, 0, 0, _ALLOW),
        (_ANSWER, 0, 0, _NOT_PERMITTED),
    ]
