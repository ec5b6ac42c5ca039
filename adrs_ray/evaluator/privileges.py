"""What a process gives up before it runs a candidate: capabilities, its user, and resources.

Standard library only: fork servers load this file by its path.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
import time

from .libc import (
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAPBSET_DROP,
    PR_CAPBSET_READ,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    PR_SET_SECUREBITS,
    prctl,
    syscall,
)

NOBODY = 65534
_QUEUED_SIGNALS = 1024
"""Timers and queued signals: the kernel counts them per user, and slots share one."""
_CAPABILITY_VERSION_3 = 0x20080522
_SECUREBITS = 0b11101111
"""noroot, no_setuid_fixup, no_cap_ambient_raise and the lock of each; keep_caps off and locked (linux/securebits.h)."""


class OrphanedError(RuntimeError):
    """The parent died before this process could tie its life to it."""


def forbid_new_privileges() -> None:
    """No program started from here on gains anything by set-user-id bits or file capabilities."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def drop_privileges(uid: int | None) -> None:
    """Give up every capability for good, those of the bounding and ambient sets included, and become `uid` if given.

    Raises OSError when anything is left.
    """
    for capability in range(64):
        try:
            if prctl(PR_CAPBSET_READ, capability):
                prctl(PR_CAPBSET_DROP, capability)
        except OSError:
            break  # past the last capability, or no right to narrow the set: no_new_privs makes it worthless
    if uid is None:
        try:
            prctl(PR_SET_SECUREBITS, _SECUREBITS)
        except OSError:
            pass  # without CAP_SETPCAP there is no capability that root's identity could bring back
    else:
        _become(uid)
    try:
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    except OSError:
        pass  # no ambient set, or none to clear: checked below
    syscall("capset", struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), bytes(24))
    if any(capabilities()):
        raise PermissionError("capabilities are left after all were dropped")


def capabilities() -> tuple[int, int, int]:
    """Effective, permitted and inheritable capabilities of this thread, as bit masks."""
    sets = ctypes.create_string_buffer(24)
    syscall("capget", struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), sets)
    low = struct.unpack("=6I", sets.raw)
    effective, permitted, inheritable = (low[i] | low[i + 3] << 32 for i in range(3))
    return effective, permitted, inheritable


def _become(uid: int) -> None:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    if os.getresuid() != (uid, uid, uid) or os.getresgid() != (uid, uid, uid) or os.getgroups():
        raise PermissionError(f"still {os.getresuid()} after becoming user {uid}")


def die_with_parent(parent: int, sig: int = signal.SIGKILL) -> None:
    """Get `sig` when the thread that made this process ends. Raises OrphanedError when `parent` is already gone."""
    prctl(PR_SET_PDEATHSIG, sig)
    if os.getppid() != parent:
        raise OrphanedError(f"parent is {os.getppid()}, expected {parent}")


def limit_resources(file_mb: int, open_files: int) -> None:
    """rlimits, each per process and inherited: size of one file, open files; no core files, no POSIX message queues.
    A lower hard limit stays."""
    limits = {
        resource.RLIMIT_FSIZE: file_mb * 2**20,
        resource.RLIMIT_NOFILE: open_files,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_SIGPENDING: _QUEUED_SIGNALS,
    }
    for which, value in limits.items():
        _limit(which, value)


def limit_memory(memory_mb: int) -> None:
    """Address space beyond what this process has now, as an rlimit like those of `limit_resources`."""
    _limit(resource.RLIMIT_AS, address_space() + memory_mb * 2**20)


def limit_cpu(cpu_s: int) -> None:
    """CPU seconds beyond those that this process has used, as an rlimit like those of `limit_resources`."""
    _limit(resource.RLIMIT_CPU, int(time.process_time()) + cpu_s)


def _limit(which: int, value: int) -> None:
    hard = resource.getrlimit(which)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    # one second between soft and hard: SIGXCPU tells a spent CPU limit from any other kill
    resource.setrlimit(which, (value, value + 1 if which == resource.RLIMIT_CPU and value != hard else value))


def address_space() -> int:
    """Bytes of address space that this process uses now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()
