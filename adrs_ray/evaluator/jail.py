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
    confined_by: str = ""
    """The layer round the fork server itself, such as `bubblewrap`."""


def open_rules(
    readable: Sequence[str], listable: Sequence[str], executable: Sequence[str], processes: int
) -> list[tuple[int, int]]:
    """Descriptors for `Jail.rules`; a path that is not there is left out."""
    execute = landlock.EXECUTE if processes else 0
    wanted = [(path, landlock.READ | execute) for path in readable]
    wanted += [(path, landlock.READ_DIR) for path in listable]
    wanted += [(path, landlock.READ | landlock.EXECUTE) for path in executable if processes]
    wanted += [("/dev/null", landlock.READ_FILE | landlock.WRITE_FILE)]
    opened = [landlock.open_path(path, rights) for path, rights in wanted]
    return [rule for rule in opened if rule is not None]


def enter(jail: Jail, parent: int, cpu_s: int, keep: Collection[int]) -> tuple[tuple[str, ...], int | None]:
    """Enter the jail for good: (layers that hold, the seccomp listener's descriptor or None).

    All descriptors but those of `keep` are closed. Raises OSError or OrphanedError when a layer cannot be had; the
    process must then not run the candidate.
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
    privileges.limit_resources(jail.memory_mb, cpu_s, jail.scratch_mb)
    layers.append("rlimits")
    privileges.die_with_parent(parent)
    if not jail.strict:
        return tuple(layers), None
    listener = _enter_seccomp(jail, pid)
    layers.append("seccomp" if listener is None else "seccomp-listener")
    return tuple(layers), listener


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
        return seccomp.install(seccomp.Policy(jail.processes, abi, notify=True), pid)
    except OSError as error:
        if error.errno not in _NO_LISTENER:
            raise
    return seccomp.install(seccomp.Policy(jail.processes, abi, notify=False), pid)


def _close_all_but(keep: Collection[int]) -> None:
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd not in keep:
            with contextlib.suppress(OSError):  # the listing's own is closed already
                os.close(fd)
