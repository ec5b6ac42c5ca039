"""Memory that is free for new tensors, asked before they are made."""

from __future__ import annotations

import os
from pathlib import Path

import torch

_MARGIN = 0.95
"""Share of what is free that one may plan with: allocators round up, libraries keep workspaces."""


def free_bytes(device: torch.device) -> int:
    """Bytes that torch can still give out on `device`, blocks it has cached included."""
    if device.type == "cuda":
        free, _total = torch.cuda.mem_get_info(device)
        return int(free) + int(torch.cuda.memory_reserved(device)) - int(torch.cuda.memory_allocated(device))
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def require(device: torch.device, needed: int, what: str, remedy: str) -> None:
    """ValueError, one line with `what` and `remedy`, unless `needed` bytes fit what is free."""
    free = free_bytes(device)
    if needed > free * _MARGIN:
        raise ValueError(f"{what} takes {_gib(needed)} on {device}, which has {_gib(free)} free; {remedy}")


def _gib(count: int) -> str:
    return f"{count / 2**30:.2f} GiB"
