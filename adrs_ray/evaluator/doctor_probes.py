"""A program that tries what no candidate may do, and tells what was denied. Runs in the jail, as a candidate."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
from collections.abc import Callable, Mapping
from typing import Any


def probe(public: Mapping[str, Any]) -> dict[str, bool]:
    """Name of an attempt -> whether it was denied."""
    attempts: dict[str, Callable[[], Any]] = {
        "read files outside": lambda: open(public["secret"]).close(),
        "write files outside": lambda: open("/tmp/adrs-doctor-probe", "w").close(),
        "modes of files outside": lambda: _libc("chmod", public["secret"].encode(), 0o600),
        "internet socket": lambda: socket.socket(socket.AF_INET).close(),
        "unix socket": lambda: socket.socket(socket.AF_UNIX).close(),
        "signal to the worker": lambda: os.kill(public["worker"], 0),
        "limits of the worker": lambda: resource.prlimit(public["worker"], resource.RLIMIT_NOFILE),
        "memory of the worker": lambda: open(f"/proc/{public['worker']}/mem", "rb").close(),
        "new process": _fork,
        "new program": lambda: os.execv("/bin/true", ["true"]),
        "session of its own": os.setsid,
        "shared memory": lambda: _libc("shmget", 0, 4096, 0o1600),
        "another user": lambda: os.setuid(1000),
        "signal to the fork server": lambda: os.kill(os.getppid(), signal.SIGCONT),
    }
    return {name: _denied(attempt) for name, attempt in attempts.items()}


def _denied(attempt: Callable[[], Any]) -> bool:
    try:
        attempt()
    except OSError:
        return True
    return False


def _libc(name: str, *args: int | bytes) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*args) < 0:
        raise OSError(ctypes.get_errno(), name)


def _fork() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
