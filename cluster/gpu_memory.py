"""Whether GPUs have room for an engine, by nvidia-smi: a process that died may give its memory back late."""

from __future__ import annotations

import asyncio
import csv
import subprocess
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from adrs_ray.errors import RunError

_QUERY = ["nvidia-smi", "--query-gpu=index,uuid,memory.used,memory.total", "--format=csv,noheader,nounits"]
_QUERY_S = 20.0
WAIT_S = 60.0
"""How long a start waits for memory to become free."""


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """Of one GPU, in MiB."""

    index: str
    uuid: str
    used: float
    total: float

    def has_room(self, share: float) -> bool:
        """Whether an engine that takes `share` of the whole memory fits beside what is used."""
        return self.total - self.used >= share * self.total


def parse_memory(text: str) -> list[GpuMemory]:
    """What nvidia-smi prints; lines that say something else are left out."""
    found = []
    for row in csv.reader(text.splitlines(), skipinitialspace=True):
        if len(row) == 4:
            try:
                found.append(GpuMemory(row[0].strip(), row[1].strip(), float(row[2]), float(row[3])))
            except ValueError:
                continue
    return found


def without_room(memory: Sequence[GpuMemory], devices: Sequence[str], share: float) -> list[GpuMemory]:
    """Those of `devices` (indices or UUIDs as in CUDA_VISIBLE_DEVICES) that are too full for an engine."""
    return [
        gpu
        for gpu in memory
        if any(device == gpu.index or gpu.uuid.startswith(device) for device in devices) and not gpu.has_room(share)
    ]


async def query_memory() -> list[GpuMemory] | None:
    """None: this node does not say."""
    return await asyncio.to_thread(_query)


def _query() -> list[GpuMemory] | None:
    try:
        done = subprocess.run(_QUERY, stdin=subprocess.DEVNULL, capture_output=True, timeout=_QUERY_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_memory(done.stdout.decode(errors="replace"))


async def wait_for_room(
    devices: Sequence[str],
    share: float,
    wait_s: float = WAIT_S,
    query: Callable[[], Awaitable[list[GpuMemory] | None]] = query_memory,
    tick_s: float = 1.0,
) -> None:
    """Until `share` of the memory of every one of `devices` is free, where the node can say.

    Raises RunError in one line when it is not after `wait_s`: something else uses them.
    """
    if not devices:
        return
    deadline = time.monotonic() + wait_s
    while True:
        memory = await query()
        full = without_room(memory or [], devices, share)
        if not full:
            return
        if time.monotonic() >= deadline:
            gpu = full[0]
            raise RunError(
                f"GPU {gpu.index} has {gpu.used:.0f} of {gpu.total:.0f} MiB in use by something else, and an engine "
                f"takes {share:g} of it (gpu_memory): waited {wait_s:g} s"
            )
        await asyncio.sleep(tick_s)
