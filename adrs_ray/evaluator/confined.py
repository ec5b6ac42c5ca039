"""`python -m adrs_ray.evaluator.confined [options] -- MODULE_OR_SCRIPT [arguments]`: a Python program in the jail, for
benchmarks that time programs themselves.

The jail is that of candidates (docs/jail.md), without seccomp's listener: calls are denied and not counted. Descriptors
that are open at the start stay open, so pipes and sockets that the caller passes on lead straight to the program. Of
this project only `gpu_eval` can be imported.

Three processes: the command keeps nothing but standard error and the caller's environment, which may hold secrets; the
supervisor (`supervisor`), begun clean and in a session of its own, is the watchdog, and removes what the program leaves
even when the command is killed; the program. The command ends as the program did. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from .privileges import die_with_parent

MEMORY_MB, THREADS = 4096, 16
KILLED = 137
"""The exit code when the program was killed."""
_TICK_S = 0.2
_KEPT_VARIABLES = ("LANG", "PATH", "TMPDIR", "PYTHONHASHSEED", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS",
                   "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "LD_LIBRARY_PATH")  # fmt: skip
_PYTHON = ("-s", "-P", "-B", str(Path(__file__).with_name("bootstrap.py")))


def confined_command(
    program: Sequence[str],
    *,
    readable: Sequence[str] = (),
    devices: str = "",
    memory_mb: int = MEMORY_MB,
    threads: int = THREADS,
    processes: int = 0,
    python: str = sys.executable,
) -> list[str]:
    """The command that runs a module or a script (`program`, with its arguments) in the jail.

    `readable`: files and folders that it may read besides libraries and gpu_eval. `devices`: GPUs, as
    CUDA_VISIBLE_DEVICES names them. `memory_mb`: address space; with devices what is resident. `processes`: 0: none and
    no exec; else compilers can be run too. It ends with the program's exit code, 137 when it was killed or more than it
    may, 2 with one line on standard error when there is no jail to be had here.
    """
    options = [word for path in readable for word in ("--readable", path)]
    options += ["--memory-mb", str(memory_mb), "--threads", str(threads), "--processes", str(processes)]
    options += ["--devices", devices] if devices else []
    return [python, *_PYTHON, "confined", *options, "--", *program]


def main(arguments: Sequence[str]) -> None:
    """Run the program under a supervisor; raises SystemExit with its code."""
    caller, command = os.getppid(), os.getpid()
    inherited = open_descriptors()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        die_with_parent(command, signal.SIGTERM)
        kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        os.execve(sys.executable, [sys.executable, *_PYTHON, "supervise", *arguments], kept)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: _end(pid))
    for fd in inherited - {2}:
        os.close(fd)
    pidfd = os.pidfd_open(pid)
    while not select.select([pidfd], [], [], _TICK_S)[0]:
        if os.getppid() != caller:
            _end(pid)
    _, status = os.waitpid(pid, 0)
    raise SystemExit(exit_code(status))


def _end(supervisor: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(supervisor, signal.SIGTERM)


def exit_code(status: int) -> int:
    """Of a wait status, for who ends as that process did."""
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else KILLED


def open_descriptors() -> set[int]:
    """Those of this process now."""
    found = set()
    for fd in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):  # the listing's own
            os.fstat(fd)
            found.add(fd)
    return found


if __name__ == "__main__":
    command = confined_command([])[:-1]
    os.execv(command[0], [*command[: command.index("confined") + 1], *sys.argv[1:]])
