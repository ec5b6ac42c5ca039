"""GPUs of this machine: which there are, how slots share them, and whose turn it is on each."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections import Counter, deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from adrs_ray.task import Stage

_LISTING_TIMEOUT_S = 30.0
_UUID = re.compile(r"^(\s*)\S.*\(UUID: ((?:GPU|MIG)-[0-9A-Za-z/-]+)\)\s*$")


def visible_devices(environment: Mapping[str, str] = os.environ) -> list[str]:
    """GPUs that this process may use, as CUDA_VISIBLE_DEVICES takes them; none where there are none.

    What CUDA_VISIBLE_DEVICES names, up to the first entry that CUDA takes for none; where it is not set, what
    `nvidia-smi -L` lists.
    """
    named = environment.get("CUDA_VISIBLE_DEVICES")
    return _listed() if named is None else parse_visible(named)


def parse_visible(value: str) -> list[str]:
    """The devices that a value of CUDA_VISIBLE_DEVICES makes visible; CUDA stops at the first that it does not know."""
    found: list[str] = []
    for entry in (part.strip() for part in value.split(",")):
        if not re.fullmatch(r"\d+|(?:GPU|MIG)-[0-9A-Za-z/-]+", entry) or entry in found:
            break
        found.append(entry)
    return found


def parse_listing(text: str) -> list[str]:
    """The UUIDs in what `nvidia-smi -L` printed: of a GPU that is cut into instances (MIG), those of its instances."""
    found: list[str] = []
    for line in text.splitlines():
        match = _UUID.match(line)
        if match is None:
            continue
        if match[2].startswith("MIG-") and match[1] and found and found[-1].startswith("GPU-"):
            found.pop()  # the GPU above is usable through its instances only
        found.append(match[2])
    return found


def _listed() -> list[str]:
    try:
        done = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, timeout=_LISTING_TIMEOUT_S, check=False, text=True
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return []
    return parse_listing(done.stdout) if done.returncode == 0 else []


def groups_of(devices: Sequence[str], stage: Stage) -> list[str]:
    """What each slot of a stage sees as CUDA_VISIBLE_DEVICES: whole devices, each in one group, or shares of one."""
    if stage.gpus < 1:
        shares = int(1 / stage.gpus + 1e-9)
        return [device for device in devices for _ in range(shares)]
    size = int(stage.gpus)
    return [",".join(devices[start : start + size]) for start in range(0, len(devices) - size + 1, size)]


class DeviceTurns:
    """Who runs on which device: no more than the whole of it at once, first come, first served."""

    def __init__(self) -> None:
        self._used: Counter[str] = Counter()
        """Thousandths of each device."""
        self._waiting: deque[tuple[tuple[str, ...], int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def on(self, devices: str, gpus: float) -> AsyncIterator[None]:
        """Hold a share (of one device, below 1) or the whole of each of `devices`, separated by commas."""
        names, share = tuple(devices.split(",")), min(1000, int(1000 * gpus))
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((names, share, granted))
        self._grant()
        try:
            await granted
        except asyncio.CancelledError:
            if not granted.cancelled():  # it came together with the turn
                self._give_back(names, share)
            self._grant()
            raise
        try:
            yield
        finally:
            self._give_back(names, share)
            self._grant()

    def _give_back(self, names: tuple[str, ...], share: int) -> None:
        for name in names:
            self._used[name] -= share

    def _grant(self) -> None:
        """To everybody whose devices have room and are not waited for by somebody who came before."""
        claimed: set[str] = set()
        for entry in list(self._waiting):
            names, share, granted = entry
            room = claimed.isdisjoint(names) and all(self._used[name] + share <= 1000 for name in names)
            if granted.cancelled():
                self._waiting.remove(entry)
            elif room:
                self._waiting.remove(entry)
                self._used.update(dict.fromkeys(names, share))
                granted.set_result(None)
            else:
                claimed.update(names)
