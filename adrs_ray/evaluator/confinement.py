"""How candidates are confined on this machine: decided once per evaluator, by asking the interpreter they will use."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adrs_ray.config import EvaluatorConfig
from adrs_ray.errors import UsageError
from adrs_ray.evaluator.device_nodes import NO_DEVICES, DeviceAccess
from adrs_ray.evaluator.privileges import NOBODY
from adrs_ray.task import Task, repository_root

BOOTSTRAP = Path(__file__).with_name("bootstrap.py")
_DRIVER_LIBRARIES = "/usr/local/nvidia/lib64"
"""Where some clusters put the driver's libraries, which the linker's cache does not know of there."""
_PACKAGES = ("adrs_ray", "cluster", "tasks", "gpu_eval")
_PROBE_TIMEOUT_S = 120.0
_WITH_DEVICES = {
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    "CUDA_CACHE_DISABLE": "1",
    **({"LD_LIBRARY_PATH": _DRIVER_LIBRARIES} if os.path.isdir(_DRIVER_LIBRARIES) else {}),
}
"""CUDA's own cache of compiled kernels would go into scratch; without it they are compiled again in every process, but
for those that the build step keeps."""
_UNSAFE_HINT = "or set evaluator.sandbox: unsafe, which runs candidates without a jail and marks their verdicts"


@dataclass(frozen=True)
class Confinement:
    """What every fork server of an evaluator is started with."""

    python: str
    strict: bool
    readable: tuple[str, ...]
    listable: tuple[str, ...]
    """Folders of which only parts are readable."""
    executable: tuple[str, ...]
    landlock_abi: int
    """0 when bubblewrap (or nothing) confines."""
    uid: int | None
    """The ordinary user that candidates become; None: they stay who the worker is, without capabilities."""
    bubblewrap: str | None
    """Path of bwrap when it stands in for Landlock."""
    devices: DeviceAccess = NO_DEVICES
    """What every process of a candidate sees of GPUs, and may open of them."""


def choose_confinement(task: Task, config: EvaluatorConfig) -> Confinement:
    """Decide. Raises UsageError: no Linux, an interpreter that does not run, or no jail to be had and none waived."""
    if platform.system() != "Linux":
        raise UsageError(f"candidates can be judged on Linux only, this is {platform.system()}")
    python = config.python or sys.executable
    whole_folder = task.kind == "openevolve"
    adapter_files = [str(task.adapter_path), *([str(task.shims)] if task.shims else [])]
    needed = [*adapter_files, *([str(task.folder)] if whole_folder else [])]
    found = _probe(python, [*_our_packages(), str(task.folder)], needed)
    readable = [*found["readable"], *needed, str(_numba_cache())]
    if whole_folder and isinstance(shims := task.foreign.get("shims"), str):
        readable.append(shims)
    strict = config.sandbox == "strict"
    bubblewrap = None
    if strict:
        if not found["machine_known"]:
            raise UsageError(f"no table of system calls for {found['machine']}: use x86_64 or aarch64, {_UNSAFE_HINT}")
        if not found["landlock_abi"]:
            bubblewrap = shutil.which("bwrap")
            if bubblewrap is None:
                raise UsageError(
                    f"this kernel has no Landlock and bubblewrap is not installed: install bubblewrap, {_UNSAFE_HINT}"
                )
    return Confinement(
        python=python,
        strict=strict,
        readable=tuple(readable),
        listable=tuple(found["listable"]),
        executable=tuple(found["executable"]),
        landlock_abi=found["landlock_abi"] if strict else 0,
        uid=NOBODY if found["nobody"] and strict and bubblewrap is None else None,
        bubblewrap=bubblewrap,
    )


def _our_packages() -> list[str]:
    return [str(repository_root() / name) for name in _PACKAGES]


def _probe(python: str, forbidden: list[str], needed: list[str]) -> dict[str, Any]:
    where = f"evaluator.python {python}"
    try:
        done = subprocess.run(
            [python, "-s", "-P", "-B", str(BOOTSTRAP), "probe"],
            input=json.dumps({"forbidden": forbidden, "needed": needed}).encode(),
            capture_output=True,
            env=clean_environment(python, 1),
            timeout=_PROBE_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"{where} does not run: {error}") from None
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise UsageError(f"{where} cannot run candidates (Python 3.11 or later is needed): {last[0]}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def clean_environment(python: str, threads: int, devices: str = "") -> dict[str, str]:
    """The whole environment of a fork server: nothing of ours is inherited. Hashes of strings are the same in each.

    OpenBLAS alone starts its threads when numpy is imported, before the fork, which would lose them: it has one.
    GPUs are numbered as drivers and Ray do, by their place on the bus: CUDA's own order is by speed.
    """
    counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), str(threads))
    return {
        "PATH": f"{os.path.dirname(python) or '/usr/bin'}:/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "NUMBA_CACHE_DIR": str(_numba_cache()),
        "OPENBLAS_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": devices,
        **(_WITH_DEVICES if devices else {}),
        **counts,
    }


def _numba_cache() -> Path:
    """Compiled kernels of adapters; fork servers write it, candidates may only read it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "adrs-ray" / "numba"
