"""On what a bench ran: devices, drivers, versions, clocks and load, so that a result can be read a year later.

No host names, users, paths or serial numbers: results are published.
"""

from __future__ import annotations

import csv
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any, TypedDict

from .clocks import finite_number, query_nvidia_smi

_FIELDS = (
    "uuid",
    "name",
    "driver_version",
    "memory.total",
    "memory.used",
    "clocks.sm",
    "clocks.max.sm",
    "temperature.gpu",
    "power.limit",
    "utilization.gpu",
)
_QUERY_S = 20.0
_TEXT = 80
_PACKAGES = ("numpy", "torch", "triton", "numba", "scipy")
_BUSY_SHARE = 0.1
_BUSY_GPU_PERCENT = 5.0


class Gpu(TypedDict):
    """One GPU as nvidia-smi tells it; None: it did not say."""

    name: str
    driver: str | None
    memory_mib: float | None
    memory_used_mib: float | None
    sm_clock_mhz: float | None
    sm_clock_max_mhz: float | None
    temperature_c: float | None
    power_limit_w: float | None
    utilization_percent: float | None


def environment(device: str) -> dict[str, Any]:
    """What there is and how busy it is at this moment, as plain JSON values; None: unknown.

    `device` is `cpu` or `cuda`; only `cuda` looks for GPUs and imports torch. `idle`: less than a tenth of the cores
    (or half of one) is busy by the load average of the last minute, and no visible GPU above 5 percent; take it before
    the bench begins, since the bench itself is load. Never raises for what programs or files of the system say.
    """
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device is {device!r}, expected cpu or cuda")
    gpus, cuda, nccl = _gpus() if device == "cuda" else ([], None, None)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    load = _load()
    return {
        "device": device,
        "gpu_count": len(gpus),
        "gpus": gpus,
        "cuda": cuda,
        "nccl": nccl,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "system": platform.system(),
        "machine": platform.machine(),
        "cpu": cpu_model(_read("/proc/cpuinfo")),
        "cores": cores,
        "memory_gib": memory_gib(_read("/proc/meminfo")),
        "load_1m": load,
        "idle": is_idle(load, cores, gpus),
    }


def is_idle(load_1m: float | None, cores: int, gpus: list[Gpu]) -> bool | None:
    """Whether nothing else seems to run; None when the load of the machine or of a GPU is unknown."""
    used = [gpu["utilization_percent"] for gpu in gpus]
    if load_1m is not None and load_1m > max(0.5, _BUSY_SHARE * cores):
        return False
    if any(percent is not None and percent > _BUSY_GPU_PERCENT for percent in used):
        return False
    return None if load_1m is None or None in used else True


def parse_gpus(text: str, uuids: frozenset[str] = frozenset()) -> list[Gpu]:
    """The GPUs in what nvidia-smi prints for our query; lines of another form are left out.

    With `uuids` (those that the process may use) only these, unless none of them is listed (parts of GPUs have their
    own names). What is no finite number, such as `[N/A]`, is None.
    """
    try:
        rows = [row for row in csv.reader(text.splitlines(), skipinitialspace=True) if len(row) == len(_FIELDS)]
    except csv.Error:
        return []
    chosen = [row for row in rows if row[0].strip().removeprefix("GPU-") in uuids] or rows
    return [
        Gpu(
            name=_clean(row[1]) or "unknown",
            driver=_clean(row[2]),
            memory_mib=finite_number(row[3]),
            memory_used_mib=finite_number(row[4]),
            sm_clock_mhz=finite_number(row[5]),
            sm_clock_max_mhz=finite_number(row[6]),
            temperature_c=finite_number(row[7]),
            power_limit_w=finite_number(row[8]),
            utilization_percent=finite_number(row[9]),
        )
        for row in chosen
    ]


def cpu_model(cpuinfo: str) -> str | None:
    """The first `model name` of /proc/cpuinfo, which some architectures do not give."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return _clean(value)
    return None


def memory_gib(meminfo: str) -> float | None:
    """`MemTotal` of /proc/meminfo, which counts in KiB, in GiB to one digit."""
    for line in meminfo.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "MemTotal:" and (kib := finite_number(words[1])) is not None:
            return round(kib / 2**20, 1)
    return None


def _gpus() -> tuple[list[Gpu], str | None, str | None]:
    """GPUs that this process may use, the CUDA version of torch and that of NCCL."""
    import torch

    if not torch.cuda.is_available():
        return [], torch.version.cuda, None
    seen = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    text = query_nvidia_smi(_FIELDS, _QUERY_S)
    gpus = parse_gpus(text, frozenset(str(getattr(one, "uuid", "")).removeprefix("GPU-") for one in seen))
    nccl = torch.cuda.nccl.version() if torch.distributed.is_nccl_available() else None
    version = None if nccl is None else ".".join(map(str, nccl)) if isinstance(nccl, tuple) else str(nccl)
    return gpus or [_from_torch(one) for one in seen], torch.version.cuda, version


def _from_torch(properties: Any) -> Gpu:
    """Name and memory are known without nvidia-smi, too."""
    return Gpu(
        name=_clean(str(properties.name)) or "unknown",
        driver=None,
        memory_mib=properties.total_memory / 2**20,
        memory_used_mib=None,
        sm_clock_mhz=None,
        sm_clock_max_mhz=None,
        temperature_c=None,
        power_limit_w=None,
        utilization_percent=None,
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _load() -> float | None:
    try:
        return round(os.getloadavg()[0], 2)
    except (OSError, AttributeError):
        return None


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _clean(text: str) -> str | None:
    kept = "".join(letter for letter in " ".join(text.split()) if letter.isprintable())[:_TEXT]
    return None if not kept or kept.startswith("[") else kept
