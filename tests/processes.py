"""Looking at processes and ending them, by pid alone."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def table() -> dict[int, tuple[int, str]]:
    """pid -> (parent, command line) of every process but zombies."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if fields[0] != "Z":
                found[int(entry.name)] = (int(fields[1]), command)
    return found


def descendants(root: int) -> dict[int, str]:
    """Every process below `root`, itself included: pid -> command line."""
    processes = table()
    family = {root}
    grown = True
    while grown:
        more = {pid for pid, (parent, _) in processes.items() if parent in family} - family
        family |= more
        grown = bool(more)
    return {pid: processes[pid][1] for pid in family if pid in processes}


def kill(pids: list[int]) -> None:
    """SIGKILL each."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def wait_gone(pids: set[int], seconds: float) -> dict[int, str]:
    """Those that are still there after at most `seconds`: pid -> command line."""
    deadline = time.monotonic() + seconds
    while True:
        left = {pid: command for pid, (_, command) in table().items() if pid in pids}
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.05)
