"""CPU time and memory of a run's processes, from /proc: every process below one, by kind.

Ray names its workers after the actor's class. What a worker has started counts to the worker's kind.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DRIVER = "driver"
REST = "rest"
"""The driver's other processes: raylet, GCS, idle workers."""

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Process:
    """One process as it is now."""

    pid: int
    parent: int
    command: str
    cpu_s: float
    """User and system, children that were waited for included: those of a fork server live for milliseconds."""


def tree(root: int) -> dict[int, Process]:
    """`root` and every process below it, by pid."""
    everybody = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (process := _read(entry)) is not None:
            everybody[process.pid] = process
    children = defaultdict(list)
    for process in everybody.values():
        children[process.parent].append(process)
    found, ahead = {}, [everybody[root]] if root in everybody else []
    while ahead:
        process = ahead.pop()
        found[process.pid] = process
        ahead += children[process.pid]
    return found


def _read(entry: Path) -> Process | None:
    """None for a process that has ended meanwhile."""
    try:
        fields = (entry / "stat").read_text(errors="replace").rsplit(")", 1)[1].split()
        command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    return Process(int(entry.name), int(fields[1]), command, sum(map(int, fields[11:15])) / _TICKS_PER_S)


def by_kind(processes: Mapping[int, Process], root: int, kinds: Mapping[str, str]) -> dict[str, list[Process]]:
    """The processes of `tree(root)` by kind. `kinds`: from the name of an actor's class to a kind."""
    found: dict[str, list[Process]] = {DRIVER: [], REST: [], **{kind: [] for kind in kinds.values()}}
    for process in processes.values():
        found[_kind(process, processes, root, kinds)].append(process)
    return found


def _kind(process: Process, processes: Mapping[int, Process], root: int, kinds: Mapping[str, str]) -> str:
    if process.pid == root:
        return DRIVER
    ancestor: Process | None = process
    while ancestor is not None and ancestor.pid != root:
        for name, kind in kinds.items():
            if ancestor.command.startswith(f"ray::{name}"):
                return kind
        ancestor = processes.get(ancestor.parent)
    return REST


def pss_mb(pid: int) -> float:
    """The process's share of memory in MB (2**20 bytes), pages that others share counted in part; 0 for one that has
    ended or that may not be looked into."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
