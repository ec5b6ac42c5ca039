"""What lives below a process: descendants, threads, and the way to end them all (source: proc(5)).

Names of processes are never read where the kernel lets us avoid it: a candidate chooses them, and nothing that it
chose may stay in the memory of a fork server. Standard library only: fork servers load this file by its path.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Collection, Iterable

_KERNEL_LISTS_CHILDREN = os.path.exists(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
_PAGE_BYTES = resource.getpagesize()
_status = bytearray(8192)


def descendants(pid: int, without: Collection[int] = ()) -> list[int]:
    """Process ids below `pid`, parents first, zombies included; not those of `without` and what is below them."""
    children = _children if _KERNEL_LISTS_CHILDREN else _ChildrenByScan()
    found: list[int] = []
    waiting = [pid]
    while waiting:
        for child in children(waiting.pop()):
            if child not in without:
                found.append(child)
                waiting.append(child)
    return found


def _children(pid: int) -> list[int]:
    children: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
                children += map(int, file.read().split())
    except (FileNotFoundError, ProcessLookupError):
        pass  # it ended while we looked
    return children


class _ChildrenByScan:
    """For kernels without CONFIG_PROC_CHILDREN."""

    def __init__(self) -> None:
        self._by_parent: dict[int, list[int]] = {}
        for pid in _pids():
            try:
                with open(f"/proc/{pid}/stat", "rb") as file:
                    parent = int(file.read().rpartition(b")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            self._by_parent.setdefault(parent, []).append(pid)

    def __call__(self, pid: int) -> list[int]:
        return self._by_parent.get(pid, [])


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def session_members(session: int) -> list[int]:
    """Every process of a session, wherever it was moved to."""
    return [pid for pid in _pids() if _session(pid) == session]


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return None


def resident_bytes(pid: int) -> int:
    """Memory of the process that lies in RAM, what it shares with others included; 0 when it has ended."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * _PAGE_BYTES
    except (FileNotFoundError, ProcessLookupError):
        return 0


def held_bytes(pid: int) -> int:
    """As `resident_bytes`, and what its page tables take: memory that is only ever read takes nothing but these."""
    try:
        fd = os.open(f"/proc/{pid}/status", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        return 0
    try:
        end = os.readv(fd, [_status])
        found = [_status.find(b"\nVmPTE:", 0, end), _status.find(b"\nVmRSS:", 0, end)]
        return sum(1024 * int(_status[at + 7 : _status.index(b"kB", at)]) for at in found if at >= 0)
    except ProcessLookupError:
        return 0
    finally:
        os.close(fd)
        _status[:] = bytes(len(_status))  # its first line is the name


def innermost_id(pid: int) -> int | None:
    """The id that the process has for itself, in its own namespace of process ids; None when it has ended."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            line = next((line for line in file if line.startswith(b"NSpid:")), None)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return pid if line is None else int(line.split()[-1])


def thread_count(pid: int) -> int:
    """Threads alive in the process; 0 when it has ended."""
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except (FileNotFoundError, ProcessLookupError):
        return 0


def thread_group(tid: int, among: Iterable[int]) -> int | None:
    """The one of some processes that a thread belongs to."""
    return next((pid for pid in among if os.path.exists(f"/proc/{pid}/task/{tid}")), None)


def kill(pid: int) -> None:
    """SIGKILL; nothing happens when it has ended already."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def kill_group(group: int) -> None:
    """SIGKILL to a whole process group at once: no member can fork past it."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass
