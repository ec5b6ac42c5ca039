"""One child of a fork server under supervision: its denied calls answered, its threads, processes and memory watched.

Standard library only: fork servers load this file by its path.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from . import processes, seccomp
from .channel import receive_message
from .libc import machine_numbers

_TAKING_S = 5.0
"""A process that is handed a program and says nothing for so long is given up."""


@dataclass(frozen=True)
class Caps:
    """What the watchdog holds a child and all it starts to."""

    processes: int
    threads: int
    """Of each process."""
    resident_bytes: int | None = None
    """Of all together, beyond what they had when the watch began; None: address space is bounded instead."""


class Watch:
    """One child under supervision."""

    def __init__(self, pid: int, setup: socket.socket, caps: Caps, aside: Collection[int]) -> None:
        """`aside`: children of the fork server that wait for their turn, not to be counted or ended with this one."""
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.setup = setup
        self.listener: int | None = None
        self.reason: str | None = None
        self.prepared_cpu_s: float | None = None
        """CPU seconds until it was ready for a program, as it says itself before it has one; None until then."""
        self._caps = caps
        self._aside = aside
        self._base_bytes = self._held_bytes(os.getpid())
        self._heard = False
        self._layers: list[str] = []
        self.setup_error: str | None = "it died before it was jailed"
        self._denied: Counter[str] = Counter()
        self._names = {number: name for name, number in (machine_numbers() or {}).items()}

    def hear(self) -> bool:
        """Take the next word of the child: that it stands in the jail, with the listener; that it is ready for a
        program; what went wrong. False when it has died without one."""
        received = receive_message(self.setup)
        if received is None:
            return False
        self._heard = True
        message, fds = received
        self.setup_error = message.get("error")
        self._layers = message.get("layers", self._layers)
        self.prepared_cpu_s = message.get("prepared_cpu_s")
        if fds:
            self.listener = fds[0]
        return True

    def hear_last_words(self) -> None:
        """What a child that has ended said before."""
        while not self.settled and select.select([self.setup], [], [], 0)[0]:
            if not self.hear():
                return

    @property
    def settled(self) -> bool:
        """Whether it has said all that it will before it has a program."""
        return self.prepared_cpu_s is not None or (self._heard and self.setup_error is not None)

    def begin(self) -> None:
        """It gets a program: what was denied until now is not the program's, nor what memory it has."""
        self._denied.clear()
        self._base_bytes = max(self._base_bytes, self._held_bytes(self.pid))

    def has_taken(self) -> bool:
        """Whether it has got what was handed over to it. One that is dying has not, and no program is to blame."""
        told = select.select([self.setup.fileno(), self.pidfd], [], [], _TAKING_S)[0]
        return self.setup.fileno() in told and receive_message(self.setup) is not None

    def answer_call(self) -> None:
        """Answer one call that waits for us."""
        assert self.listener is not None
        call = seccomp.receive(self.listener)
        if call is None:
            return
        name = self._names.get(call.number, str(call.number))
        error = self._judge_call(name, call)
        if self.reason is None:
            seccomp.answer(self.listener, call, error)

    def _judge_call(self, name: str, call: seccomp.Notification) -> int | None:
        if name in seccomp.KILLED or (name == "clone" and seccomp.clone_makes_namespace(call.arguments[0])):
            self.reason = f"violation:{name}"
            self._denied[name] += 1
            return errno.EPERM
        if name in ("clone", "fork", "vfork"):
            return self._judge_fork(bool(name == "clone" and call.arguments[0] & seccomp.CLONE_THREAD), call.tid)
        if name in ("kill", "tgkill") and call.arguments[0] in self._members():
            return None
        self._denied[name] += 1
        return errno.EPERM

    def _judge_fork(self, thread: bool, tid: int) -> int | None:
        if thread:
            caller = processes.thread_group(tid, self._members())
            if caller is not None and processes.thread_count(caller) < self._caps.threads:
                return None
            self._denied["thread"] += 1
            return errno.EAGAIN
        if len(self._members()) <= self._caps.processes:
            return None
        self._denied["process"] += 1
        return errno.EAGAIN if self._caps.processes else errno.EPERM

    def _members(self) -> list[int]:
        return processes.descendants(os.getpid(), self._aside)

    def _held_bytes(self, pid: int) -> int:
        return 0 if self._caps.resident_bytes is None else processes.held_bytes(pid)

    def check_use(self) -> None:
        """The watchdog, at every tick: an excess ends it. Where there is no listener it is the only cap on threads."""
        members = self._members()
        for pid in members:
            if pid != self.pid:
                _reap(pid)
        self.reason = excess(members, self._caps, self._base_bytes) or self.reason

    def report(self) -> dict[str, Any]:
        return {
            "reason": self.reason,
            "layers": self._layers,
            "setup_error": self.setup_error,
            "denied": dict(self._denied),
        }

    def stop_answering(self) -> None:
        """From here on nothing new can be started under the filter."""
        if self.listener is not None:
            os.close(self.listener)
            self.listener = None

    def close(self) -> None:
        """After the child has ended: a short life may be over before its first word was read."""
        self.hear_last_words()
        self.stop_answering()
        os.close(self.pidfd)
        self.setup.close()


def excess(members: Collection[int], caps: Caps, base_bytes: int) -> str | None:
    """`processes`, `threads` or `memory`: what a child and all it started have more of than twice its cap, or of memory
    than the cap; None when nothing. `base_bytes`: what each had when the watch began.

    Twice, as the listener counts what exists: forks and clones that are under way at once can pass it together.
    """
    if len(members) > 1 + 2 * caps.processes:
        return "processes"
    if any(processes.thread_count(pid) > 2 * caps.threads for pid in members):
        return "threads"
    if caps.resident_bytes is not None:
        grown = (max(0, processes.held_bytes(pid) - base_bytes) for pid in members)
        if sum(grown) > caps.resident_bytes:
            return "memory"
    return None


def end_child(pid: int, aside: Collection[int]) -> tuple[int, float]:
    """Kill the child and every descendant until none is left: (its wait status, CPU seconds of all of them)."""
    processes.kill_group(pid)
    processes.kill(pid)
    _, status, usage = os.wait4(pid, 0)
    return status, usage.ru_utime + usage.ru_stime + end_descendants(aside)


def end_descendants(aside: Collection[int] = ()) -> float:
    """Kill until no descendant is left but those of `aside`; the CPU seconds of those reaped here."""
    cpu_s = 0.0
    while left := processes.descendants(os.getpid(), aside):
        for pid in left:
            processes.kill(pid)
        reaped = [usage for usage in map(_reap, left) if usage is not None]
        cpu_s += sum(reaped)
        if not reaped:
            time.sleep(0.001)
    return cpu_s


def _reap(pid: int) -> float | None:
    """The CPU seconds of a child that has ended; None when it has not, or is some other process's child."""
    try:
        ended, _, usage = os.wait4(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return usage.ru_utime + usage.ru_stime if ended else None
