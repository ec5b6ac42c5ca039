"""Semaphores over pipes, for evaluators that use `multiprocessing` where the jail denies POSIX semaphores.

`multiprocessing`'s locks, queues and pools, and so `ProcessPoolExecutor`, need `sem_open(3)`, whose files lie in
/dev/shm for any process to find. A pipe that holds one byte per free place does the same for a process and the
children it forks, and ends with them. Untrusted, in the jail, standard library only. Not for the `spawn` start
method, nor for `multiprocessing.Manager`, which listens on a socket.
"""

from __future__ import annotations

import array
import fcntl
import importlib
import os
import select
import sys
import termios
import threading
import time
from typing import Any

_RECURSIVE_MUTEX = 0
_FREE = b"\0"


class PipeSemaphore:
    """What `_multiprocessing.SemLock` offers to `multiprocessing.synchronize`."""

    SEM_VALUE_MAX = 32_767
    """What a pipe of 64 KiB surely holds. A queue without a bound blocks its writer at so many items."""

    def __init__(self, kind: int, value: int, maxvalue: int, name: str, unlink: bool) -> None:
        self.kind = kind
        self.maxvalue = maxvalue
        self.name: str | None = None
        """None: there is no named semaphore that somebody would have to remove."""
        self._free, self._give = os.pipe()
        self.handle = self._free
        os.set_blocking(self._free, False)
        os.write(self._give, _FREE * value)
        self._after_fork()

    def _after_fork(self) -> None:
        """The places that the parent's threads hold are not this process's."""
        self._held = 0
        self._holder: int | None = None

    def __del__(self) -> None:
        for end in (getattr(self, "_free", None), getattr(self, "_give", None)):
            if end is not None:
                os.close(end)

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Take a place; False when there was none (in time)."""
        if self.kind == _RECURSIVE_MUTEX and self._is_mine():
            self._held += 1
            return True
        deadline = None if timeout is None else time.monotonic() + max(0.0, timeout)
        while not self._take():
            left = None if deadline is None else deadline - time.monotonic()
            if not block or (left is not None and left <= 0):
                return False
            waiting = select.poll()  # select(2) stops at descriptor 1024
            waiting.register(self._free, select.POLLIN)
            waiting.poll(None if left is None else left * 1000)
        self._held += 1
        self._holder = threading.get_ident()
        return True

    def _take(self) -> bool:
        try:
            return os.read(self._free, 1) == _FREE
        except BlockingIOError:
            return False

    def release(self) -> None:
        """Give a place back. AssertionError for another's recursive lock, ValueError for a place too many."""
        if self.kind == _RECURSIVE_MUTEX:
            if not self._is_mine():
                raise AssertionError("attempt to release recursive lock not owned by thread")
            if self._held > 1:
                self._held -= 1
                return
        elif self._get_value() >= self.maxvalue:
            raise ValueError("semaphore or lock released too many times")
        self._held -= 1
        os.write(self._give, _FREE)

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def _count(self) -> int:
        return self._held

    def _is_mine(self) -> bool:
        return self._held > 0 and self._holder == threading.get_ident()

    def _get_value(self) -> int:
        """Bytes in the pipe, as the kernel counts them."""
        waiting = array.array("i", [0])
        fcntl.ioctl(self._free, termios.FIONREAD, waiting)
        return waiting[0]

    def _is_zero(self) -> bool:
        return self._get_value() == 0


def use_pipes_and_scratch() -> None:
    """Let `multiprocessing`, here and in what this process forks, do without POSIX semaphores and /dev/shm.

    Shared values and arrays lie in the folder for temporary files instead.
    """
    native: Any = importlib.import_module("_multiprocessing")
    native.SemLock = PipeSemaphore
    synchronize: Any = sys.modules.get("multiprocessing.synchronize")
    if synchronize is not None:  # imported before, with the limit of the semaphores there were
        synchronize.SEM_VALUE_MAX = PipeSemaphore.SEM_VALUE_MAX
    heap: Any = importlib.import_module("multiprocessing.heap")
    heap.Arena._dir_candidates = []
