"""How much memory of GPUs processes hold: asked of the driver now and then, away from who waits for the answer.

The driver names processes by the ids they have on the machine. A worker in a container with process ids of its own does
not find its children among them: they then count as holding nothing, and only the size of the device bounds them.
"""

from __future__ import annotations

import contextlib
import ctypes
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from adrs_ray.evaluator.device_nodes import DeviceAccess

Reader: TypeAlias = Callable[[], Mapping[int, int]]
"""Bytes of device memory by process id, over all GPUs of the machine. Never raises for what the driver says."""
PERIOD_S = 0.5
_SMI_TIMEOUT_S = 10.0
_LIBRARY = "libnvidia-ml.so.1"
_INSUFFICIENT_SIZE = 7
_NOT_AVAILABLE = 2**64 - 1
_MOST_PROCESSES = 4096


class _ProcessInfo(ctypes.Structure):
    """nvmlProcessInfo_t of the calls with the suffix _v3 (source: nvml.h)."""

    _fields_ = (
        ("pid", ctypes.c_uint),
        ("used_bytes", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


def nvml_reader(library: Any = None) -> Reader | None:
    """Through the driver's library; None where there is none, or an older one than of CUDA 11.5."""
    try:
        nvml = library or ctypes.CDLL(_LIBRARY)
        running = nvml.nvmlDeviceGetComputeRunningProcesses_v3
        if nvml.nvmlInit_v2() != 0:
            return None
    except (OSError, AttributeError):
        return None

    def read() -> Mapping[int, int]:
        used: dict[int, int] = {}
        count = ctypes.c_uint(0)
        if nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
            return used
        for index in range(count.value):
            device = ctypes.c_void_p()
            if nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device)) == 0:
                for info in _processes_on(running, device):
                    if info.used_bytes != _NOT_AVAILABLE:
                        used[info.pid] = used.get(info.pid, 0) + info.used_bytes
        return used

    return read


def _processes_on(running: Any, device: ctypes.c_void_p) -> Iterable[_ProcessInfo]:
    room = ctypes.c_uint(64)
    while room.value <= _MOST_PROCESSES:
        found = (_ProcessInfo * room.value)()
        result = running(device, ctypes.byref(room), found)
        if result == 0:
            return found[: room.value]
        if result != _INSUFFICIENT_SIZE:
            break
        room = ctypes.c_uint(2 * max(room.value, len(found)))  # more may have come meanwhile
    return ()


def smi_reader() -> Reader | None:
    """Through `nvidia-smi`; None where there is none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]

    def read() -> Mapping[int, int]:
        try:
            done = subprocess.run(command, capture_output=True, timeout=_SMI_TIMEOUT_S, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return {}
        return parse_compute_apps(done.stdout.decode(errors="replace")) if done.returncode == 0 else {}

    return read


def parse_compute_apps(text: str) -> dict[int, int]:
    """Bytes by process id of lines `pid, MiB`; lines that say anything else, such as `[N/A]`, are left out."""
    used: dict[int, int] = {}
    for line in text.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) == 2 and all(part.isascii() and part.isdigit() and len(part) < 12 for part in parts):
            used[int(parts[0])] = used.get(int(parts[0]), 0) + int(parts[1]) * 2**20
    return used


class DeviceMemoryWatch:
    """The latest answer of a reader, asked for by a thread of its own while somebody wants to know."""

    def __init__(self, reader: Reader, period_s: float = PERIOD_S) -> None:
        self._reader = reader
        self._period_s = period_s
        self._latest: Mapping[int, int] = {}
        self._wanted = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="device-memory", daemon=True)
        self._thread.start()

    def used_bytes(self, pids: Iterable[int]) -> int:
        """What the processes held when the driver was last asked; it is asked again soon."""
        self._wanted.set()
        latest = self._latest
        return sum(latest.get(pid, 0) for pid in pids)

    def close(self) -> None:
        """End the thread; safe to call twice."""
        self._closed.set()
        self._wanted.set()
        self._thread.join()

    def _poll(self) -> None:
        while not self._closed.is_set():
            self._wanted.wait()
            self._wanted.clear()
            with contextlib.suppress(Exception):  # a reader that breaks leaves the last answer, and the next may come
                self._latest = self._reader()
            self._closed.wait(self._period_s)


def watch_of(devices: DeviceAccess) -> DeviceMemoryWatch | None:
    """A watch where devices are opened to candidates and the driver can be asked."""
    reader = nvml_reader() or smi_reader() if devices.nodes else None
    return None if reader is None else DeviceMemoryWatch(reader)
