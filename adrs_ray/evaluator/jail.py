"""The jail: what stands between a candidate and the machine, put on in the candidate's own process after the fork.

Layers, each for what the others cannot do: no new privileges; Landlock (files, TCP, signals and sockets to others);
user and capabilities dropped; rlimits; death with the parent; seccomp (system calls, with a listener that counts).
Standard library only: fork servers load this file by its path.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from . import landlock, privileges, seccomp
from .seccomp import SETUP_FD

_NO_LISTENER = (errno.EBUSY, errno.EINVAL, errno.ENOSYS)


@dataclass(frozen=True)
class Jail:
    """What every candidate of a fork server gets. With `strict` false only rlimits and the tie to the parent hold."""

    strict: bool
    landlock_abi: int
    """0 with `strict`: the fork server itself stands in bubblewrap, which hides all other files."""
    uid: int | None
    """The user to become; None: stay, without capabilities."""
    rules: Sequence[tuple[int, int]]
    """(O_PATH descriptor, rights) for Landlock."""
    scratch: str
    """The folder that may be written to, made anew for each process."""
    memory_mb: int
    scratch_mb: int
    processes: int
    devices: bool = False
    """Nodes of GPUs are among the rules: their ioctls pass, and memory is not bounded by address space, which CUDA
    reserves without measure, but by the fork server's eyes."""
    listener: bool = True
    """Whether somebody will answer what seccomp's listener brings."""
    confined_by: str = ""
    """The layer round the fork server itself, such as `bubblewrap`."""


_OPEN_FILES, _OPEN_FILES_WITH_DEVICES = 128, SETUP_FD
"""CUDA opens the node of a GPU some dozens of times."""


def open_rules(
    readable: Sequence[str],
    listable: Sequence[str],
    executable: Sequence[str],
    processes: int,
    nodes: Sequence[str] = (),
) -> list[tuple[int, int]]:
    """Descriptors for `Jail.rules`; a path that is not there is left out."""
    execute = landlock.EXECUTE if processes else 0
    wanted = [(path, landlock.READ | execute) for path in readable]
    wanted += [(path, landlock.READ_DIR) for path in listable]
    wanted += [(path, landlock.READ | landlock.EXECUTE) for path in executable if processes]
    wanted += [("/dev/null", landlock.READ_FILE | landlock.WRITE_FILE), *((node, landlock.DEVICE) for node in nodes)]
    opened = [landlock.open_path(path, rights) for path, rights in wanted]
    return [rule for rule in opened if rule is not None]


def enter(jail: Jail, parent: int, keep: Collection[int]) -> tuple[tuple[str, ...], int | None]:
    """Enter the jail for good: (layers that hold, the seccomp listener's descriptor or None).

    All descriptors but those of `keep` are closed. `limit_program` is still to be called before a program comes. Raises
    OSError or OrphanedError when a layer cannot be had; the process must then not run the candidate.
    """
    layers: list[str] = [jail.confined_by] if jail.confined_by else []
    pid = os.getpid()
    if jail.strict:
        privileges.forbid_new_privileges()
        layers.append("no-new-privileges")
        if jail.landlock_abi:
            _enter_landlock(jail, pid)
            layers.append(f"landlock-{jail.landlock_abi}")
        privileges.drop_privileges(jail.uid)
        layers.append("no-capabilities" if jail.uid is None else f"user-{jail.uid}")
    _close_all_but(keep)
    privileges.limit_resources(jail.scratch_mb, _OPEN_FILES_WITH_DEVICES if jail.devices else _OPEN_FILES)
    layers.append("rlimits")
    privileges.die_with_parent(parent)
    if not jail.strict:
        return tuple(layers), None
    listener = _enter_seccomp(jail, pid)
    layers.append("seccomp" if listener is None else "seccomp-listener")
    return tuple(layers), listener


def limit_program(jail: Jail, cpu_s: int) -> None:
    """Bound what a program may use from here on, beyond what this process has and has used: memory and CPU seconds."""
    if not jail.devices:
        privileges.limit_memory(jail.memory_mb)
    privileges.limit_cpu(cpu_s)


def _enter_landlock(jail: Jail, pid: int) -> None:
    own = landlock.open_path(f"/proc/{pid}", landlock.READ)
    if own is None:
        raise FileNotFoundError(f"/proc/{pid} is not there: is /proc mounted?")
    scratch = landlock.open_path(jail.scratch, landlock.WRITE | (landlock.EXECUTE if jail.processes else 0))
    if scratch is None:
        raise FileNotFoundError(f"the scratch folder {jail.scratch} is not there")
    landlock.restrict(jail.landlock_abi, [*jail.rules, own, scratch])


def _enter_seccomp(jail: Jail, pid: int) -> int | None:
    abi = jail.landlock_abi or 3  # bubblewrap: whatever may be opened for reading is mounted read-only
    try:
        if jail.listener:
            return seccomp.install(seccomp.Policy(jail.processes, abi, True, jail.devices), pid)
    except OSError as error:
        if error.errno not in _NO_LISTENER:
            raise
    return seccomp.install(seccomp.Policy(jail.processes, abi, False, jail.devices), pid)


def _close_all_but(keep: Collection[int]) -> None:
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd not in keep:
            with contextlib.suppress(OSError):  # the listing's own is closed already
                os.close(fd)
