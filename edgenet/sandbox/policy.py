"""Take from this process what a reader of a file does not need: writing, the network, other programs, other processes.

Three nets, one beside the other, each of which holds where another is missing:

    landlock  files may be read everywhere and written in one folder at most; no program, no TCP
              https://docs.kernel.org/userspace-api/landlock.html
    seccomp   the kernel refuses the calls that write files, open sockets, start programs or reach other processes
              https://docs.kernel.org/userspace-api/seccomp_filter.html
    limits    computing time, memory, open files, the size of what is written; no core file

None needs root, and none can be taken back. What a kernel lacks is left out: `available` says which it has. It has to
come before a second thread exists, and so before NumPy is imported: Landlock is for the thread that asks. Stands alone
in one file, for device_bench/runner.py.
"""

import ctypes
import errno
import os
import platform
import signal
import struct
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

NETS = ("landlock", "seccomp", "limits")


@dataclass(frozen=True)
class Policy:
    """What a process may still do.

    Attributes:
        writes_in: the one folder in which it may write, None for nowhere.
        cpu_s: seconds of computing, over all threads; None for no limit, as of the next.
        data_bytes: memory that it may have for itself.
        file_bytes: the size of a file that it writes; 0 where it writes none.
        open_files: how many it may have open at once.
        devices: whether it may open devices, as the driver of a graphics card has to.
        programs: whether it may start programs, which are held as it is: for one that is no Python, and is started.
    """

    writes_in: str | None = None
    cpu_s: int | None = None
    data_bytes: int | None = None
    file_bytes: int | None = 0
    open_files: int = 512
    devices: bool = False
    programs: bool = False


def confine(policy: Policy, nets: Collection[str] = NETS) -> tuple[str, ...]:
    """Hold this process to `policy` from now on; return the nets that hold it, of those that were asked for."""
    held = []
    if "limits" in nets and _limit(policy):
        held.append("limits")
    if sys.platform != "linux":
        return tuple(held)
    libc = _Libc()
    _drop_capabilities(libc)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1) != 0:  # without it neither of the next may be asked for
        return tuple(held)
    if "landlock" in nets and _restrict_files(libc, policy):
        held.append("landlock")
    if "seccomp" in nets and _filter_calls(libc, policy):
        held.append("seccomp")
    return tuple(held)


def available() -> tuple[str, ...]:
    """Return the nets that this kernel has; nothing changes."""
    found = ["limits"] if _resource() else []
    if sys.platform == "linux":
        libc = _Libc()
        found += ["landlock"] * (landlock_abi(libc) > 0) + ["seccomp"] * (_has_seccomp(libc) and _arch() is not None)
    return tuple(net for net in NETS if net in found)


def die_with(parent: int) -> bool:
    """Have the kernel kill this process when the thread that started it ends, on Linux; False if it has already."""
    if sys.platform != "linux":
        return True
    _Libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent


# ------------------------------------------------------------------------------------------------------------- limits


def _resource() -> Any:
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource


def _limit(policy: Policy) -> bool:
    resource = _resource()
    if resource is None:
        return False
    for name, value, more in (
        ("RLIMIT_CORE", 0, 0),
        ("RLIMIT_FSIZE", policy.file_bytes, 0),
        ("RLIMIT_NOFILE", policy.open_files, 0),
        ("RLIMIT_CPU", policy.cpu_s, 5),  # the first ends it by a signal of its own, the second whatever it does
        ("RLIMIT_DATA", policy.data_bytes, 0),
    ):
        if value is None or not hasattr(resource, name):
            continue
        _, hard = resource.getrlimit(getattr(resource, name))
        most = value + more if hard == resource.RLIM_INFINITY else min(value + more, hard)
        try:
            resource.setrlimit(getattr(resource, name), (min(value, most), most))
        except (ValueError, OSError):  # a system that keeps its own limit; the others hold
            continue
    return True


# ----------------------------------------------------------------------------------------------------------- the kernel

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38


class _Libc:
    """System calls by number; -1 is a refusal, and `error` says why."""

    def __init__(self) -> None:
        self._lib = ctypes.CDLL(None, use_errno=True)

    def prctl(self, option: int, *values: int) -> int:
        given = [ctypes.c_ulong(v) for v in (*values, 0, 0, 0, 0)[:4]]
        return int(self._lib.prctl(ctypes.c_int(option), *given))

    def call(self, number: int, *values: Any) -> int:
        self._lib.syscall.restype = ctypes.c_long
        return int(self._lib.syscall(ctypes.c_long(number), *values))

    @property
    def error(self) -> int:
        return ctypes.get_errno()


def _drop_capabilities(libc: _Libc) -> None:
    """Of root's powers keep only that of reading anyone's files."""
    call = {"x86_64": 126, "aarch64": 91}.get(platform.machine())  # capset
    if call is None or os.geteuid() != 0:
        return
    cap_dac_read_search = 1 << 2
    header = struct.pack("=Ii", 0x20080522, 0)
    kept = struct.pack("=6I", cap_dac_read_search, cap_dac_read_search, 0, 0, 0, 0)
    libc.call(call, ctypes.c_char_p(header), ctypes.c_char_p(kept))


# ------------------------------------------------------------------------------------------------------------- Landlock

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every machine
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE, _IOCTL_DEV = 1, 1 << 1, 1 << 2, 1 << 3, 1 << 14, 1 << 15
_REMOVE_AND_MAKE = sum(1 << bit for bit in range(4, 13))  # folders, files, devices, sockets, pipes, links
_REFER = 1 << 13  # to link or rename into another folder
_TCP, _SCOPES = 0b11, 0b11  # bind and connect; abstract sockets and signals of others


def landlock_abi(libc: _Libc | None = None) -> int:
    """Return the version of the kernel's Landlock, 0 where it has none."""
    if sys.platform != "linux":
        return 0
    return max(0, (libc or _Libc()).call(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1)))


def _restrict_files(libc: _Libc, policy: Policy) -> bool:
    abi = landlock_abi(libc)
    if abi == 0:
        return False
    handled = (0 if policy.programs else _EXECUTE) | _WRITE_FILE | _REMOVE_AND_MAKE
    handled |= (_REFER if abi >= 2 else 0) | (_TRUNCATE if abi >= 3 else 0)
    handled |= _IOCTL_DEV if abi >= 5 and not policy.devices else 0
    parts = (handled, _TCP if abi >= 4 else 0, _SCOPES if abi >= 6 else 0)
    attributes = struct.pack("=3Q", *parts)[: 8 if abi < 4 else 16 if abi < 6 else 24]
    ruleset = libc.call(
        _CREATE_RULESET, ctypes.c_char_p(attributes), ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0)
    )
    if ruleset < 0:
        return False
    file_rights = handled & (_WRITE_FILE | _TRUNCATE | _IOCTL_DEV)
    rules = {os.devnull: file_rights}
    if policy.writes_in is not None:
        rules[policy.writes_in] = handled & ~_EXECUTE
    if policy.devices:
        rules["/dev"] = handled & _WRITE_FILE
    try:
        for path, rights in rules.items():
            _allow(libc, ruleset, path, rights)
        return libc.call(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0)) == 0
    finally:
        os.close(ruleset)


def _allow(libc: _Libc, ruleset: int, path: str, rights: int) -> None:
    try:
        at = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # what is not there cannot be written
        return
    path_beneath = 1
    rule = struct.pack("=Qi", rights, at)
    libc.call(_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(path_beneath), ctypes.c_char_p(rule), ctypes.c_uint32(0))
    os.close(at)


# -------------------------------------------------------------------------------------------------------------- seccomp

# Calls that are refused, (x86_64, aarch64); None where the machine lacks it. arch/x86/entry/syscalls/syscall_64.tbl and
# include/uapi/asm-generic/unistd.h of Linux.
_Calls = Mapping[str, tuple[int | None, int | None]]
_NETWORK: _Calls = {
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201),
    "accept": (43, 202), "accept4": (288, 242), "sendmmsg": (307, 269),
}  # fmt: skip
_PROGRAMS: _Calls = {"execve": (59, 221), "execveat": (322, 281), "fork": (57, None), "vfork": (58, None)}
_OTHER_PROCESSES: _Calls = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424), "tkill": (200, 130), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "kcmp": (312, 272), "process_madvise": (440, 440), "mq_open": (240, 180),
    "mq_unlink": (241, 181), "shmget": (29, 194), "shmctl": (31, 195), "semget": (64, 190), "semctl": (66, 191),
    "msgget": (68, 186), "msgctl": (71, 187), "msgsnd": (69, 189),
}  # fmt: skip
_KERNEL: _Calls = {
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "bpf": (321, 280),
    "userfaultfd": (323, 282), "perf_event_open": (298, 241), "keyctl": (250, 219), "add_key": (248, 217),
    "request_key": (249, 218), "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39),
    "pivot_root": (155, 41), "chroot": (161, 51), "move_mount": (429, 429), "open_tree": (428, 428),
    "open_tree_attr": (467, 467), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432),
    "fspick": (433, 433), "mount_setattr": (442, 442), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142),
    "swapon": (167, 224), "swapoff": (168, 225), "sethostname": (170, 161), "setdomainname": (171, 162),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171), "clock_adjtime": (305, 266),
    "iopl": (172, None), "ioperm": (173, None), "acct": (163, 89), "quotactl": (179, 60), "quotactl_fd": (443, 443),
    "syslog": (103, 116), "vhangup": (153, 58), "personality": (135, 92), "fanotify_init": (300, 262),
    "open_by_handle_at": (304, 265),
}  # fmt: skip
_OWNERS_AND_MODES: _Calls = {
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None),
    "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7), "setxattrat": (463, 463), "removexattr": (197, 14), "lremovexattr": (198, 15),
    "fremovexattr": (199, 16), "removexattrat": (466, 466), "file_setattr": (469, 469), "utime": (132, None),
    "utimes": (235, None), "utimensat": (280, 88), "futimesat": (261, None),
}  # fmt: skip
_FILES: _Calls = {
    "creat": (85, None), "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None), "unlink": (87, None),
    "unlinkat": (263, 35), "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276), "link": (86, None),
    "linkat": (265, 37), "symlink": (88, None), "symlinkat": (266, 36), "mknod": (133, None), "mknodat": (259, 33),
    "truncate": (76, 45),
}  # fmt: skip
_OPEN: _Calls = {"open": (2, None), "openat": (257, 56)}
# Their arguments lie where a filter cannot look; libraries do without them where a kernel lacks them.
_UNSEEN: _Calls = {"clone3": (435, 435), "openat2": (437, 437)}
_CLONE, _KILL, _TGKILL, _PRLIMIT, _IOCTL = (56, 220), (62, 129), (234, 131), (302, 261), (16, 29)
_CLONE_THREAD, _TIOCSTI, _TIOCLINUX = 0x10000, 0x5412, 0x541C
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

_ARCHES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column above, AUDIT_ARCH
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # of classic BPF
_ALLOW, _ERROR, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_SET_MODE_FILTER, _GET_ACTION_AVAIL = 1, 2


def _arch() -> tuple[int, int] | None:
    return _ARCHES.get(platform.machine()) if sys.maxsize > 2**32 and sys.byteorder == "little" else None


def _seccomp_number() -> int:
    return {"x86_64": 317, "aarch64": 277}.get(platform.machine(), -1)


def _has_seccomp(libc: _Libc) -> bool:
    action = ctypes.c_uint32(_ERROR)
    return libc.call(_seccomp_number(), ctypes.c_uint(_GET_ACTION_AVAIL), ctypes.c_uint(0), ctypes.byref(action)) == 0


def program(policy: Policy, column: int, arch: int, pid: int) -> bytes:
    """Return the filter, in classic BPF: a list of questions about one call, each of which may end in an answer."""
    refused = _ERROR | errno.EPERM
    code = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, arch), (_RETURN, 0, 0, _KILL_PROCESS), (_LOAD, 0, 0, 0)]
    if column == 0:  # the same calls by the numbers of x32
        code += [(_AT_LEAST, 0, 1, 0x40000000), (_RETURN, 0, 0, refused)]

    def refuse(calls: _Calls, answer: int = refused) -> None:
        for numbers in calls.values():
            if numbers[column] is not None:
                code.extend([(_EQUAL, 0, 1, int(numbers[column] or 0)), (_RETURN, 0, 0, answer)])

    def ask(number: int | None, argument: int, test: int, value: int, yes: int, no: int) -> None:
        """Answer `yes` or `no` for this call by its argument's lower half."""
        if number is not None:
            code.extend([
                (_EQUAL, 0, 4, number), (_LOAD, 0, 0, 16 + 8 * argument), (test, 0, 1, value), (_RETURN, 0, 0, yes),
                (_RETURN, 0, 0, no),
            ])  # fmt: skip

    for calls in (_NETWORK, _OTHER_PROCESSES, _KERNEL, _OWNERS_AND_MODES):
        refuse(calls)
    if not policy.programs:
        refuse(_PROGRAMS)
        ask(_CLONE[column], 0, _ANY_BIT, _CLONE_THREAD, _ALLOW, refused)
    refuse(_UNSEEN, _ERROR | errno.ENOSYS)
    if policy.writes_in is None and not policy.devices:
        refuse(_FILES)
        for name, numbers in _OPEN.items():
            ask(numbers[column], 1 if name == "open" else 2, _ANY_BIT, _WRITING, refused, _ALLOW)
    ask(_KILL[column], 0, _EQUAL, pid, _ALLOW, refused)
    ask(_TGKILL[column], 0, _EQUAL, pid, _ALLOW, refused)
    ask(_PRLIMIT[column], 0, _EQUAL, 0, _ALLOW, refused)
    # Typing into a terminal is two requests of one call.
    code += [(_EQUAL, 0, 4, _IOCTL[column]), (_LOAD, 0, 0, 24), (_EQUAL, 1, 0, _TIOCSTI), (_EQUAL, 0, 1, _TIOCLINUX)]
    code += [(_RETURN, 0, 0, refused), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def _filter_calls(libc: _Libc, policy: Policy) -> bool:
    arch = _arch()
    if arch is None:
        return False
    code = program(policy, *arch, os.getpid())
    buffer = ctypes.create_string_buffer(code, len(code))
    described = ctypes.create_string_buffer(struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer)))
    return libc.call(_seccomp_number(), ctypes.c_uint(_SET_MODE_FILTER), ctypes.c_uint(0), described) == 0
