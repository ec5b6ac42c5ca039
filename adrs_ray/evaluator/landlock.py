"""Landlock: confines a process, and all it starts, to the files it was given (source: linux/landlock.h, ABI 1 to 7).

Standard library only: fork servers load this file by its path.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from collections.abc import Iterable

from .libc import syscall

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE_DIR, REMOVE_FILE = 1 << 4, 1 << 5
MAKE_CHAR, MAKE_DIR, MAKE_REG, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK, MAKE_SYM = (1 << n for n in range(6, 13))
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_NET_BIND_TCP, _NET_CONNECT_TCP = 1, 2
_SCOPE_ABSTRACT_UNIX_SOCKET, _SCOPE_SIGNAL = 1, 2

READ = READ_FILE | READ_DIR
WRITE = READ | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | MAKE_FIFO | MAKE_SYM | REFER | TRUNCATE
DEVICE = READ_FILE | WRITE_FILE | IOCTL_DEV
LOWEST_DESCRIPTOR = 256
"""Rules lie from here on: a child puts its channel and pipes at fixed lower numbers before it uses them."""
_FOR_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1


def abi() -> int:
    """The version of Landlock that the kernel offers; 0 when there is none."""
    try:
        return syscall("landlock_create_ruleset", None, 0, _CREATE_RULESET_VERSION)
    except OSError:
        return 0


def handled(version: int) -> int:
    """All file rights that a version of Landlock can take away."""
    last = {1: MAKE_SYM, 2: REFER, 3: TRUNCATE, 4: TRUNCATE}.get(version, IOCTL_DEV)
    return (last << 1) - 1


def open_path(path: str, rights: int) -> tuple[int, int] | None:
    """(O_PATH descriptor, the rights that fit its kind), or None when the path is not there or not reachable."""
    try:
        low = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return None
    fd = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, LOWEST_DESCRIPTOR)
    os.close(low)
    return fd, rights if stat.S_ISDIR(os.fstat(fd).st_mode) else rights & _FOR_FILES


def restrict(version: int, rules: Iterable[tuple[int, int]]) -> None:
    """Confine this thread to `rules` (O_PATH descriptor, rights). `no_new_privs` must be set. Raises OSError."""
    filesystem = handled(version)
    network = _NET_BIND_TCP | _NET_CONNECT_TCP if version >= 4 else 0
    scoped = _SCOPE_ABSTRACT_UNIX_SOCKET | _SCOPE_SIGNAL if version >= 6 else 0
    fields = 3 if version >= 6 else 2 if version >= 4 else 1
    attributes = struct.pack("QQQ", filesystem, network, scoped)[: 8 * fields]
    ruleset = syscall("landlock_create_ruleset", attributes, len(attributes), 0)
    try:
        for fd, rights in rules:
            allowed = rights & filesystem
            if allowed:
                syscall("landlock_add_rule", ruleset, _RULE_PATH_BENEATH, struct.pack("=Qi", allowed, fd), 0)
        syscall("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)
