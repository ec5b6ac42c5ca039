"""Runs one engine and leaves nothing of it behind: `python -I engine_guard.py PARENT COMMAND...`.

Two processes watch each other: the outer one is the actor's child, the inner one holds the engine. When the actor is
gone (its end of our standard input closes), a SIGTERM comes, the engine ends, or one of the two is killed, everything
below is killed. Both are subreapers: workers whose parent died stay below. What could be left all the same
`reap_orphans` finds by its environment. The exit status is the engine's, or 128 + the signal that ended it.

Standard library only, loaded by path: it must start in no time, in any interpreter.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable

ENGINE_VARIABLE = "ADRS_ENGINE"
GUARD_VARIABLE = "ADRS_ENGINE_GUARD"
TERM_S = 1.5
"""What an engine has to end by itself after SIGTERM, before everything is killed."""
_GONE_S = 10.0
_TICK_S = 0.1
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


_told = False
"""Whether a signal asked us to end."""


def main(actor: int, command: list[str]) -> int:
    """Run it under guard until it has ended and nothing is left. `actor` is the process that wants it: our parent."""
    outer = os.getpid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _tell)
    try:
        # Ray's workers are at nice 15, and where CPUs are busy an engine there starves, and so does its guard.
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    except PermissionError:
        pass  # only root may
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    inner = os.fork()
    if inner == 0:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        _die_with(outer, signal.SIGTERM)
        held = _hold(command)
        _sweep()
        os._exit(held)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # the inner one alone listens whether the actor is there
    status = _await(inner, lambda: _told or os.getppid() != actor)
    if status is None:
        ended = time.monotonic() + TERM_S + _GONE_S

        def tell_again() -> bool:
            _quietly(inner, signal.SIGTERM)  # a process that was just forked forgets the signals that came before
            return time.monotonic() > ended

        status = _await(inner, tell_again)
    _sweep()
    return 1 if status is None else status


def _tell(_number: int, _frame: object) -> None:
    global _told
    _told = True


def _prctl(option: int, value: int) -> None:
    _libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))


def _die_with(parent: int, number: int) -> None:
    """Get a signal when `parent` ends; it may have ended already."""
    _prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def _hold(command: list[str]) -> int:
    """Start the engine, wait for its end or ours, and end it."""
    environment = dict(os.environ)
    environment[ENGINE_VARIABLE] = environment.pop(GUARD_VARIABLE, "")
    inner = os.getpid()
    try:
        engine = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            env=environment,
            process_group=0,
            preexec_fn=lambda: _die_with(inner, signal.SIGKILL),
        )
    except (OSError, subprocess.SubprocessError) as error:
        print(f"Error: cannot start {command[0]}: {error}", file=sys.stderr, flush=True)
        return 127
    while engine.poll() is None and not _told:
        readable, _, _ = select.select([0], [], [], _TICK_S)
        if readable and not os.read(0, 4096):
            break
        _bury(engine.pid)
    if engine.poll() is None:
        _quietly(-engine.pid, signal.SIGTERM)
        try:
            engine.wait(TERM_S)
        except subprocess.TimeoutExpired:
            engine.kill()
            engine.wait()
    return engine.returncode if engine.returncode >= 0 else 128 - engine.returncode


def _bury(engine: int) -> None:
    """Adopted processes that have ended leave the table; not the engine, whose status is for `Popen`."""
    for pid in _children(os.getpid()):
        if pid != engine:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                pass


def _await(pid: int, enough: Callable[[], bool]) -> int | None:
    """The exit status of a child; None when it has not ended before `enough`."""
    while not enough():
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        time.sleep(_TICK_S)
    return None


def _sweep() -> None:
    """Kill everything below this process until nothing is left, for a while: the kernel may not let go."""
    deadline = time.monotonic() + _GONE_S
    while (below := _descendants(os.getpid())) and time.monotonic() < deadline:
        for pid in below:
            _quietly(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass
        time.sleep(0.02)


def _quietly(pid: int, number: int) -> None:
    try:
        if pid < 0:
            os.killpg(-pid, number)
        else:
            os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def _parents() -> dict[int, int]:
    """pid -> parent of every process there is (source: proc(5))."""
    found: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    found[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
            except (OSError, IndexError, ValueError):
                continue
    return found


def _children(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(child) for child in file.read().split()]
    except OSError:
        return [child for child, parent in _parents().items() if parent == pid]


def _descendants(pid: int) -> list[int]:
    parents = _parents()
    family = {pid}
    grown = True
    while grown:
        more = {child for child, parent in parents.items() if parent in family} - family
        family |= more
        grown = bool(more)
    return sorted(family - {pid})


def _marks(pids: Iterable[int]) -> tuple[dict[int, str], set[int]]:
    """Engines' processes of this user with their markers, and guards."""
    engines: dict[int, str] = {}
    guards: set[int] = set()
    for pid in pids:
        try:
            if os.stat(f"/proc/{pid}").st_uid != os.getuid():
                continue
            with open(f"/proc/{pid}/environ", "rb") as file:
                variables = file.read().split(b"\0")
        except OSError:
            continue
        for variable in variables:
            name, _, value = variable.partition(b"=")
            if name == GUARD_VARIABLE.encode():
                guards.add(pid)
            elif name == ENGINE_VARIABLE.encode():
                engines[pid] = value.decode(errors="replace")
    return {pid: marker for pid, marker in engines.items() if pid not in guards}, guards


def orphans(marker: str | None = None) -> dict[int, str]:
    """Processes of engines that no guard watches any more: pid -> marker. `marker`: those of one replica only."""
    parents = _parents()
    engines, guards = _marks(parents)
    found = {}
    for pid, own in engines.items():
        above = pid
        while above in parents and above not in guards:
            above = parents[above]
        # A chain that breaks off is one that changed while we looked: its parent ended just now.
        if above == 0 and (marker is None or own == marker):
            found[pid] = own
    return found


def reap_orphans(marker: str | None = None, seconds: float = 5.0) -> list[int]:
    """Kill what an earlier start left on this node: processes of engines, of this user, without a guard.

    Returns whom it killed, when they are gone or `seconds` have passed.
    """
    first = orphans(marker)
    if not first:
        return []
    time.sleep(_TICK_S)
    killed: set[int] = set()
    deadline = time.monotonic() + seconds
    # Twice the same answer: a process between two parents is no orphan.
    left = {pid: own for pid, own in orphans(marker).items() if first.get(pid) == own}
    while left and time.monotonic() < deadline:
        for pid in left:
            _quietly(pid, signal.SIGKILL)
        killed |= left.keys()
        time.sleep(0.02)
        left = orphans(marker)
    return sorted(killed)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
