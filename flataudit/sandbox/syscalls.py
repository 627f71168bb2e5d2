"""Which system calls a candidate is refused, by what it would do with them, with their numbers.

The numbers are those of the kernel's headers: ``(x86_64, aarch64)``, None where the machine has no such call.
"""

from collections.abc import Mapping

__all__ = ["BY_ARGUMENT", "QUIET", "REFUSED", "number"]

REFUSED: Mapping[str, Mapping[str, tuple[int, int | None]]] = {
    "open a socket": {
        "socket": (41, 198),
        "socketpair": (53, 199),
        "connect": (42, 203),
        "bind": (49, 200),
        "listen": (50, 201),
        "accept": (43, 202),
        "accept4": (288, 242),
    },
    "start a process": {
        "fork": (57, None),
        "vfork": (58, None),
        "clone": (56, 220),
        "clone3": (435, 435),
        "execve": (59, 221),
        "execveat": (322, 281),
    },
    "leave its process group or container": {
        "setsid": (112, 157),
        "setpgid": (109, 154),
        "setns": (308, 268),
        "unshare": (272, 97),
        "chroot": (161, 51),
        "pivot_root": (155, 41),
    },
    "look into another process": {
        "ptrace": (101, 117),
        "process_vm_readv": (310, 270),
        "process_vm_writev": (311, 271),
        "process_madvise": (440, 440),
        "kcmp": (312, 272),
        "pidfd_open": (434, 434),
        "pidfd_getfd": (438, 438),
        "pidfd_send_signal": (424, 424),
        "kill": (62, 129),
        "tkill": (200, 130),
        "tgkill": (234, 131),
        "rt_sigqueueinfo": (129, 138),
        "rt_tgsigqueueinfo": (297, 240),
        "prlimit64": (302, 261),
        "perf_event_open": (298, 241),
        "userfaultfd": (323, 282),
        "prctl": (157, 167),
    },
    "mount a file system": {
        "mount": (165, 40),
        "umount2": (166, 39),
        "move_mount": (429, 429),
        "open_tree": (428, 428),
        "mount_setattr": (442, 442),
        "fsopen": (430, 430),
        "fsconfig": (431, 431),
        "fsmount": (432, 432),
        "fspick": (433, 433),
        "swapon": (167, 224),
        "swapoff": (168, 225),
        "quotactl": (179, 60),
        "quotactl_fd": (443, 443),
        "acct": (163, 89),
    },
    "change the kernel": {
        "bpf": (321, 280),
        "init_module": (175, 105),
        "finit_module": (313, 273),
        "delete_module": (176, 106),
        "kexec_load": (246, 104),
        "kexec_file_load": (320, 294),
        "reboot": (169, 142),
        "syslog": (103, 116),
        "settimeofday": (164, 170),
        "clock_settime": (227, 112),
        "adjtimex": (159, 171),
        "clock_adjtime": (305, 266),
        "sethostname": (170, 161),
        "setdomainname": (171, 162),
        "iopl": (172, None),
        "ioperm": (173, None),
        "personality": (135, 92),
    },
    "reach the kernel's keys": {
        "keyctl": (250, 219),
        "add_key": (248, 217),
        "request_key": (249, 218),
    },
    "use io_uring": {
        "io_uring_setup": (425, 425),
        "io_uring_enter": (426, 426),
        "io_uring_register": (427, 427),
    },
    "reach files by handle": {
        "open_by_handle_at": (304, 265),
        "name_to_handle_at": (303, 264),
        "fanotify_init": (300, 262),
        "fanotify_mark": (301, 263),
        "mknod": (133, None),
        "mknodat": (259, 33),
    },
    "change a file's mode, owner or times": {
        "chmod": (90, None),
        "fchmod": (91, 52),
        "fchmodat": (268, 53),
        "fchmodat2": (452, 452),
        "chown": (92, None),
        "fchown": (93, 55),
        "lchown": (94, None),
        "fchownat": (260, 54),
        "utime": (132, None),
        "utimes": (235, None),
        "futimesat": (261, None),
        "utimensat": (280, 88),
        "setxattr": (188, 5),
        "lsetxattr": (189, 6),
        "fsetxattr": (190, 7),
        "removexattr": (197, 14),
        "lremovexattr": (198, 15),
        "fremovexattr": (199, 16),
    },
    "keep memory outside of its limit": {
        "memfd_create": (319, 279),
        "memfd_secret": (447, 447),
        "shmget": (29, 194),
        "shmat": (30, 196),
        "shmctl": (31, 195),
        "semget": (64, 190),
        "msgget": (68, 186),
        "mq_open": (240, 180),
    },
}
BY_ARGUMENT = frozenset({"clone", "clone3", "kill", "tgkill", "prlimit64", "prctl"})
"""Refused by what they are asked (`flataudit.sandbox.seccomp`), not as a whole."""
QUIET = frozenset({"change a file's mode, owner or times", "keep memory outside of its limit"})
"""What libraries also do without harm, so that its refusal says nothing about a model."""
_COLUMN = {"x86_64": 0, "aarch64": 1}


def number(name: str, machine: str) -> int | None:
    """The number of a call in the table.

    >>> number("clone", "x86_64"), number("fork", "aarch64")
    (56, None)
    """
    return next(calls[name][_COLUMN[machine]] for calls in REFUSED.values() if name in calls)
