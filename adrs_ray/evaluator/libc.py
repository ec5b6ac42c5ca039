"""System calls that Python's standard library does not wrap, through ctypes.

Standard library only: fork servers load this file by its path.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence

from .syscalls import NUMBERS

_libc = ctypes.CDLL(None, use_errno=True)

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_SECUREBITS = 28
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4


def machine_numbers() -> dict[str, int] | None:
    """System call numbers of this machine; None when it is neither x86_64 nor aarch64."""
    return NUMBERS.get(os.uname().machine)


def syscall(name: str, *args: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """Call by name. Raises OSError, also with ENOSYS where the machine has no such call."""
    numbers = machine_numbers()
    if numbers is None or name not in numbers:
        raise OSError(38, f"{name}: {os.strerror(38)}")
    plain = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    result: int = _libc.syscall(ctypes.c_long(numbers[name]), *plain)
    if result < 0:
        raise _error(name)
    return result


def prctl(option: int, *args: int) -> int:
    """prctl(2). Raises OSError."""
    padded: Sequence[int] = (*args, 0, 0, 0, 0)[:4]
    result: int = _libc.prctl(option, *(ctypes.c_ulong(a) for a in padded))
    if result < 0:
        raise _error(f"prctl({option})")
    return result


def current_core() -> int:
    """The core that runs the calling thread: sched_getcpu(3)."""
    core: int = _libc.sched_getcpu()
    if core < 0:
        raise _error("sched_getcpu")
    return core


def _error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")
