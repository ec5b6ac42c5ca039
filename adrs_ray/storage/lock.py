"""The writer's lock: one file beside the journal, flocked by the one process that writes.

The lock keeps honest writers apart and names the holder to whoever waits; what keeps a zombie from writing is the
epoch (`sqlite.py`), so taking over without the lock is safe.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from adrs_ray.errors import RunError

_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a writer's lock, as that process wrote it into the file."""

    pid: int
    host: str

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host}"


def read_holder(path: Path) -> Holder | None:
    """The holder named in a lock file; None when it names none (being written, or no lock file)."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return Holder(int(data["pid"]), str(data["host"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def lock_file(journal: Path) -> Path:
    """Where the lock of a journal's writer lies."""
    return journal.with_suffix(".lock")


def is_held(path: Path) -> bool:
    """Whether a process holds the lock now. Raises OSError when that cannot be found out."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        # Shared and given back at once: who asks never counts as a holder.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


class WriterLock:
    """A held lock; released by `release`, or by the kernel when the process ends."""

    def __init__(self, path: Path, descriptor: int) -> None:
        """`descriptor` is open on the lock file and locked; it is closed here when the holder cannot be written."""
        self.path = path
        self._descriptor: int | None = descriptor
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(asdict(Holder(os.getpid(), socket.gethostname()))).encode(), 0)
        except OSError:
            os.close(descriptor)
            raise

    @classmethod
    def acquire(cls, path: Path, wait_s: float) -> WriterLock:
        """Wait up to `wait_s` seconds. Raises RunError, one line that names the holder."""
        deadline = time.monotonic() + wait_s
        while (lock := cls.try_acquire(path)) is None:
            if time.monotonic() >= deadline:
                holder = read_holder(path)
                raise RunError(
                    f"another process writes {path.parent} ({holder or 'it has not said which'}): end it with "
                    f"`adrs stop {path.parent}`, or take over with --fence"
                )
            time.sleep(_POLL_S)
        return lock

    @classmethod
    def try_acquire(cls, path: Path) -> WriterLock | None:
        """The lock when it is free, else None."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever fenced meanwhile has put another file in this place: a lock on the old one means nothing.
            ours = os.path.samestat(os.fstat(descriptor), os.stat(path))
        except (BlockingIOError, FileNotFoundError):
            ours = False
        if ours:
            return cls(path, descriptor)
        os.close(descriptor)
        return None

    @classmethod
    def seize(cls, path: Path) -> WriterLock:
        """Take over without waiting: a new, locked file takes the old one's place, so that later writers wait for us
        and not for the old holder, whose lock is on a file nobody looks at any more."""
        fresh = path.with_name(f"{path.name}.{os.getpid()}")
        descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock = cls(path, descriptor)
        os.replace(fresh, path)
        return lock

    def release(self) -> None:
        """Give the lock up; safe to call twice. The file stays: removing it would race with those who wait."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, 0)
            os.close(descriptor)
