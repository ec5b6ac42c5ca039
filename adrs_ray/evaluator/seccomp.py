"""The system calls that a candidate may make, as a seccomp filter (source: linux/seccomp.h, linux/filter.h).

An allowlist: a call that is not named here fails with EPERM. Exceptions: calls of `KILLED` end the process; numbers
newer than our tables, and clone3, fail with ENOSYS, so that libraries fall back to older calls; a foreign calling
convention (32 bits, x32) ends the process. Where the kernel lets it, denied calls are not answered by the filter but by
a supervisor that holds the filter's listener: it counts them by name and caps threads and processes.

Standard library only: fork servers load this file by its path.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from .libc import machine_numbers, syscall
from .syscalls import AUDIT_ARCH


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


ALLOWED = _names(
    """
    read write pread64 pwrite64 readv writev preadv pwritev lseek close close_range fsync fdatasync
    sync_file_range ftruncate sendfile splice tee vmsplice copy_file_range flock
    stat fstat lstat newfstatat statx access faccessat faccessat2 readlink readlinkat statfs fstatfs getcwd chdir fchdir
    getdents getdents64 umask getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr
    rename renameat renameat2 mkdir mkdirat rmdir unlink unlinkat link linkat symlink symlinkat creat mknod mknodat
    dup dup2 dup3 pipe pipe2 poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait
    epoll_pwait2 eventfd eventfd2 signalfd signalfd4 timerfd_create timerfd_settime timerfd_gettime
    mmap munmap mremap mprotect madvise msync brk mlock mlock2 munlock pkey_mprotect pkey_alloc pkey_free mseal
    map_shadow_stack membarrier get_mempolicy
    rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack pause alarm
    getitimer setitimer timer_create timer_settime timer_gettime timer_getoverrun timer_delete
    time gettimeofday clock_gettime clock_getres clock_nanosleep nanosleep times
    futex futex_waitv futex_wake futex_wait futex_requeue set_robust_list get_robust_list set_tid_address rseq
    restart_syscall arch_prctl sched_yield sched_getaffinity sched_getparam sched_getscheduler sched_getattr
    sched_get_priority_max sched_get_priority_min sched_rr_get_interval getcpu getpriority
    getpid getppid gettid getuid geteuid getgid getegid getresuid getresgid getgroups getpgid getpgrp getsid capget
    getrlimit setrlimit getrusage sysinfo uname getrandom exit exit_group wait4 waitid
    recvfrom recvmsg shutdown getsockname getpeername getsockopt
    """
)

IGNORED = _names("fadvise64 readahead mbind")
"""Mere advice: it succeeds and does nothing. What the page cache holds of a library can be read by the next one, and on
which node memory lies (BLAS libraries say where) is the machine's business."""

KILLED = _names(
    """
    ptrace process_vm_readv process_vm_writev pidfd_getfd bpf userfaultfd unshare setns add_key request_key keyctl
    mount umount2 pivot_root open_tree open_tree_attr move_mount fsopen fsconfig fsmount fspick mount_setattr
    kexec_load kexec_file_load init_module finit_module delete_module create_module reboot
    """
)
"""Calls without any honest use in a candidate: by the filter, or by the supervisor that hears of them, it is killed."""

_ARGUMENT_RULES = ("clone", "clone3", "fork", "vfork", "execve", "execveat", "socketpair", "sendto", "sendmsg", "kill",
                   "tgkill", "prctl", "prlimit64", "fcntl", "ioctl", "personality", "open", "openat", "truncate",
                   "preadv2", "pwritev2", "fallocate")  # fmt: skip

SETUP_FD = 255
"""Where a child sends its listener from: the one descriptor with sendmsg. It lies beyond the limit on open files, so no
candidate can have it again; descriptors sent into a socket and closed are files that nobody could count."""

CLONE_THREAD = 0x10000
_CLONE_NEW_NAMESPACES = 0x7E020000
_CLONE_PTRACE_OR_PARENT = 0xA000
_PRCTL_ALLOWED = (2, 3, 5, 7, 15, 16, 21, 27, 30, 39, 42, 0x53564D41)
"""Queries, PR_SET_NAME, PR_GET_NAME and PR_SET_VMA (names of memory areas, which allocators set)."""
_FCNTL_ALLOWED = (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030, 1031, 1032, 1034)
"""Duplicates, flags, locks, sizes of pipes, queries of seals. Not: signals to others, leases, notices, and the write
hint (1036), which stays with a library's file for the next candidate to read."""
_IOCTL_ALLOWED = (0x5401, 0x802C542A, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
"""TCGETS, TCGETS2, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX. A file system's own (flags, generation, clones)
would leave marks on a folder or take space unseen."""
_DRIVER_IOCTL_MASK, _DRIVER_IOCTL = 0xC000FF00, 0xC0004600
"""Of NVIDIA's resource manager: type 'F', read and write, any number and size (nv-ioctl-numbers.h)."""
_PAGING_IOCTLS_BELOW, _PAGING_IOCTLS = 256, (0x30000001, 0x30000002)
"""Of nvidia-uvm: plain small numbers, and its first and last call (uvm_ioctl.h, uvm_linux_ioctl.h). No call that files
on disk know has such a number but FIBMAP and FIGETBSZ, which tell nothing and need a capability."""
_SOCKET_STREAM, _SOCKET_SEQPACKET, _SOCKET_TYPE_MASK = 1, 5, 0xF
_O_ACCMODE, _O_TRUNC = 3, 0o1000

_RET_KILL_PROCESS = 0x80000000
_RET_ERRNO = 0x00050000
_RET_USER_NOTIF = 0x7FC00000
_RET_ALLOW = 0x7FFF0000
_SET_MODE_FILTER = 1
_FLAG_NEW_LISTENER = 1 << 3
_NOTIF_RECV, _NOTIF_SEND = 0xC0502100, 0xC0182101
_CONTINUE = 1

_LOAD, _AND, _JEQ, _JGE, _JSET, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
_Program = list[tuple[int, int, int, int]]


@dataclass(frozen=True)
class Policy:
    """What differs between tasks and kernels."""

    processes: int
    """Processes that a candidate may start; 0: neither fork nor exec."""
    landlock_abi: int
    """Below 3 Landlock does not know truncation: the filter denies it."""
    notify: bool
    """Denied calls go to the listener; else the filter answers them itself."""
    devices: bool = False
    """Nodes of GPUs are open: their ioctls pass."""


def build(policy: Policy, pid: int) -> _Program:
    """The filter for the process `pid`, as classic BPF. Raises OSError on a machine without a table."""
    machine = os.uname().machine
    numbers = machine_numbers()
    if numbers is None:
        raise OSError(errno.ENOSYS, f"no table of system calls for {machine}")
    program: _Program = [(_LOAD, 0, 0, 4), (_JEQ, 1, 0, AUDIT_ARCH[machine]), (_RETURN, 0, 0, _RET_KILL_PROCESS)]
    program.append((_LOAD, 0, 0, 0))
    highest = max(numbers.values())
    unknown = _RET_KILL_PROCESS if machine == "x86_64" else _RET_ERRNO | errno.ENOSYS
    program += [(_JGE, 0, 1, 0x40000000), (_RETURN, 0, 0, unknown)]  # the x32 ABI of x86_64
    program += [(_JGE, 0, 1, highest + 1), (_RETURN, 0, 0, _RET_ERRNO | errno.ENOSYS)]
    for name in _ARGUMENT_RULES:
        if name in numbers:
            block = _argument_rule(name, policy, pid)
            program += [(_JEQ, 0, len(block), numbers[name]), *block]
    return program + _plain_rules(numbers, highest, policy)


def _plain_rules(numbers: dict[str, int], highest: int, policy: Policy) -> _Program:
    """Runs of neighbouring numbers with the same answer, in ascending order."""
    names = {number: name for name, number in numbers.items()}
    answers = [_answer(names.get(number), policy) for number in range(highest + 1)]
    program: _Program = []
    for number, answer in enumerate(answers):
        if number == highest or answers[number + 1] != answer:
            program += [(_JGE, 1, 0, number + 1), (_RETURN, 0, 0, answer)]
    return [*program, (_RETURN, 0, 0, _RET_KILL_PROCESS)]


def _answer(name: str | None, policy: Policy) -> int:
    if name in ALLOWED:
        return _RET_ALLOW
    if name in IGNORED:
        return _RET_ERRNO  # with the error 0
    if name in KILLED and not policy.notify:
        return _RET_KILL_PROCESS
    return _deny(policy)


def _deny(policy: Policy) -> int:
    return _RET_USER_NOTIF if policy.notify else _RET_ERRNO | errno.EPERM


def _low(argument: int) -> tuple[int, int, int, int]:
    return (_LOAD, 0, 0, 16 + 8 * argument)


def _high(argument: int) -> tuple[int, int, int, int]:
    return (_LOAD, 0, 0, 20 + 8 * argument)


def _one_of(argument: int, values: Sequence[int], yes: int, no: int) -> _Program:
    tests = [(_JEQ, len(values) - i, 0, value) for i, value in enumerate(values)]
    return [_low(argument), *tests, (_RETURN, 0, 0, no), (_RETURN, 0, 0, yes)]


def _argument_rule(name: str, policy: Policy, pid: int) -> _Program:
    """Instructions that end in a return; the accumulator holds the call's number on entry."""
    deny = _deny(policy)
    allow = _RET_ALLOW
    if name == "clone":
        return _clone_rule(policy)
    if name in ("fork", "vfork"):
        return [(_RETURN, 0, 0, deny if policy.notify or not policy.processes else allow)]
    if name == "clone3":  # its flags lie in memory, out of a filter's sight: libc falls back to clone
        return [(_RETURN, 0, 0, _RET_ERRNO | errno.ENOSYS)]
    if name in ("execve", "execveat"):
        return [(_RETURN, 0, 0, allow if policy.processes else deny)]
    if name == "socketpair":
        return [_low(0), (_JEQ, 1, 0, 1), (_RETURN, 0, 0, deny), _low(1), (_AND, 0, 0, _SOCKET_TYPE_MASK),
                (_JEQ, 2, 0, _SOCKET_STREAM), (_JEQ, 1, 0, _SOCKET_SEQPACKET), (_RETURN, 0, 0, deny),
                (_RETURN, 0, 0, allow)]  # fmt: skip
    if name == "sendto":  # no address
        return [_low(4), (_JEQ, 0, 2, 0), _high(4), (_JEQ, 1, 0, 0), (_RETURN, 0, 0, deny), (_RETURN, 0, 0, allow)]
    if name == "sendmsg":
        return _one_of(0, (SETUP_FD,), allow, deny)
    if name in ("preadv2", "pwritev2"):  # with flags it tells whether a page of a library is cached, and by whom
        return _one_of(5, (0,), allow, deny)
    if name == "fallocate":  # gigabytes in no time; libc then writes zeros instead
        return [(_RETURN, 0, 0, _RET_ERRNO | errno.EOPNOTSUPP)]
    if name in ("kill", "tgkill"):  # itself; the listener also lets its own processes through
        return _one_of(0, (pid,), allow, deny)
    if name == "prctl":
        return _one_of(0, _PRCTL_ALLOWED, allow, deny)
    if name == "prlimit64":
        return _one_of(0, (0, pid), allow, deny)
    if name == "fcntl":
        return _one_of(1, _FCNTL_ALLOWED, allow, deny)
    if name == "ioctl":
        return [*(_driver_calls() if policy.devices else ()), *_one_of(1, _IOCTL_ALLOWED, allow, deny)]
    if name == "personality":
        return _one_of(0, (0xFFFFFFFF,), allow, deny)
    if policy.landlock_abi >= 3:
        return [(_RETURN, 0, 0, allow)]
    if name == "truncate":
        return [(_RETURN, 0, 0, deny)]
    # Landlock before ABI 3 lets O_RDONLY|O_TRUNC empty any file
    return [_low(1 if name == "open" else 2), (_JSET, 0, 3, _O_TRUNC), (_AND, 0, 0, _O_ACCMODE), (_JEQ, 0, 1, 0),
            (_RETURN, 0, 0, deny), (_RETURN, 0, 0, allow)]  # fmt: skip


def _driver_calls() -> _Program:
    """Instructions that allow the ioctls of a GPU's driver and fall through for all others."""
    plain = [test for number in _PAGING_IOCTLS for test in ((_JEQ, 0, 1, number), (_RETURN, 0, 0, _RET_ALLOW))]
    return [
        _low(1),
        (_JGE, 1, 0, _PAGING_IOCTLS_BELOW),
        (_RETURN, 0, 0, _RET_ALLOW),
        *plain,
        (_AND, 0, 0, _DRIVER_IOCTL_MASK),
        (_JEQ, 0, 1, _DRIVER_IOCTL),
        (_RETURN, 0, 0, _RET_ALLOW),
    ]


def _clone_rule(policy: Policy) -> _Program:
    deny = _deny(policy)
    kill = deny if policy.notify else _RET_KILL_PROCESS
    process = deny if policy.notify or not policy.processes else _RET_ALLOW
    thread = deny if policy.notify else _RET_ALLOW
    return [
        _low(0),
        (_JSET, 0, 1, _CLONE_NEW_NAMESPACES),
        (_RETURN, 0, 0, kill),
        (_JSET, 0, 1, _CLONE_PTRACE_OR_PARENT),
        (_RETURN, 0, 0, _RET_ERRNO | errno.EPERM),
        (_JSET, 0, 1, CLONE_THREAD),
        (_RETURN, 0, 0, thread),
        (_RETURN, 0, 0, process),
    ]


def clone_makes_namespace(flags: int) -> bool:
    """Whether clone flags ask for a namespace, as unshare would."""
    return bool(flags & _CLONE_NEW_NAMESPACES)


def install(policy: Policy, pid: int) -> int | None:
    """Install the filter for good; returns the listener's descriptor, None when the policy has no listener.

    `no_new_privs` must be set. Raises OSError: EBUSY when a listener is there already, EINVAL or ENOSYS where the
    kernel knows none.
    """

    class _FilterProgram(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    program = build(policy, pid)
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    header = _FilterProgram(len(program), ctypes.addressof(code))
    pointer = ctypes.addressof(header)
    if not policy.notify:
        syscall("seccomp", _SET_MODE_FILTER, 0, pointer)
        return None
    return syscall("seccomp", _SET_MODE_FILTER, _FLAG_NEW_LISTENER, pointer)


@dataclass(frozen=True)
class Notification:
    """A system call that waits for the supervisor's answer. `tid` is the calling thread."""

    id: int
    tid: int
    number: int
    arguments: tuple[int, ...]


_request = bytearray(80)
_response = struct.Struct("=QqiI")


def receive(listener: int) -> Notification | None:
    """The next waiting call; None when its caller has died meanwhile."""
    _request[:] = bytes(80)
    try:
        fcntl.ioctl(listener, _NOTIF_RECV, _request, True)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINTR):
            return None
        raise
    notification_id, tid, _flags, number, _arch, _pointer, *arguments = struct.unpack("=QIIiIQ6Q", _request)
    _request[:] = bytes(80)  # nothing of a candidate stays in a process that later ones are forked from
    return Notification(notification_id, tid, number, tuple(arguments))


def answer(listener: int, notification: Notification, error: int | None) -> None:
    """Let the call happen (`error` None) or fail with an errno."""
    if error is None:
        response = _response.pack(notification.id, 0, 0, _CONTINUE)
    else:
        response = _response.pack(notification.id, 0, -error, 0)
    try:
        fcntl.ioctl(listener, _NOTIF_SEND, response)
    except OSError as failed:
        if failed.errno != errno.ENOENT:  # ENOENT: the caller has died or was interrupted
            raise
