"""SM clock and temperature of a GPU, as its driver tells them; what it says is never trusted to be in order.

The driver's library answers in microseconds. nvidia-smi, for machines on which the library cannot be loaded, is a
process of a tenth of a second or more, during which the GPU idles: it is asked only for so long.
"""

from __future__ import annotations

import ctypes
import math
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

QUERY = ("clocks.sm", "temperature.gpu")
TIMEOUT_S = 5.0
ASKING_S = 3.0
"""Seconds that a log may spend asking, all in all."""
_SM_CLOCK, _GPU_SENSOR = 1, 0
"""`NVML_CLOCK_SM`, `NVML_TEMPERATURE_GPU` of nvml.h."""
SAME_CLOCK = 0.01
"""Share by which two SM clocks may differ and be called the same."""


@dataclass(frozen=True, slots=True)
class ClockReading:
    sm_mhz: float
    temperature_c: float | None


def parse_reading(text: str) -> ClockReading | None:
    """The first line of `--format=csv,noheader,nounits` for `QUERY`; None when it holds no plausible clock."""
    fields = (text.splitlines() or [""])[0].split(",")
    if len(fields) != len(QUERY):
        return None
    clock, temperature = (finite_number(field) for field in fields)
    if clock is None or not 0 < clock < 100_000:
        return None
    return ClockReading(clock, temperature if temperature is not None and -50 < temperature < 250 else None)


def ask_gpu(gpu: str) -> str:
    """SM clock and temperature of one GPU (UUID or index) as `QUERY` has them; empty where nothing tells them."""
    return ask_nvml(gpu) or ask_nvidia_smi(gpu)


def ask_nvml(gpu: str) -> str:
    """The same from NVIDIA's management library, which knows GPUs by UUID alone."""
    library = _nvml()
    device, mhz, celsius = ctypes.c_void_p(), ctypes.c_uint(), ctypes.c_uint()
    if library is None or library.nvmlDeviceGetHandleByUUID(gpu.encode(), ctypes.byref(device)):
        return ""
    if library.nvmlDeviceGetClockInfo(device, _SM_CLOCK, ctypes.byref(mhz)):
        return ""
    failed = library.nvmlDeviceGetTemperature(device, _GPU_SENSOR, ctypes.byref(celsius))
    return f"{mhz.value}, {'[N/A]' if failed else celsius.value}"


@cache
def _nvml() -> Any:
    """The library, ready for use; None where there is none. Its functions return 0 when all is well."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
        return None if library.nvmlInit_v2() else library
    except (OSError, AttributeError):
        return None


def ask_nvidia_smi(gpu: str) -> str:
    """What nvidia-smi prints for `QUERY` about one GPU (index or UUID); empty where there is none or it fails."""
    return query_nvidia_smi(QUERY, TIMEOUT_S, f"--id={gpu}")


def query_nvidia_smi(fields: Sequence[str], timeout_s: float, *options: str) -> str:
    """A line of `fields`, separated by commas, for each GPU; empty where nvidia-smi is missing, fails or hangs."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    command = [program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits", *options]
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout_s, stdin=subprocess.DEVNULL, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""


class ClockLog:
    """Readings of one GPU in the order in which they were made.

    It asks no more after the first that fails, nor once asking has taken `asking_s` seconds.
    """

    def __init__(self, gpu: str, ask: Callable[[str], str] = ask_gpu, asking_s: float = ASKING_S) -> None:
        self._gpu = gpu
        self._ask = ask
        self._left_s = asking_s
        self.readings: list[ClockReading] = []

    def read(self) -> float | None:
        """The SM clock now, MHz, or None."""
        if self._left_s <= 0:
            return None
        began = time.monotonic()
        reading = parse_reading(self._ask(self._gpu))
        self._left_s -= time.monotonic() - began
        if reading is None:
            self._left_s = 0.0
            return None
        self.readings.append(reading)
        return reading.sm_mhz


def same_clock(a: float | None, b: float | None) -> bool:
    """Whether two SM clocks are within `SAME_CLOCK` of the slower; what is not known is not held against it."""
    return a is None or b is None or abs(a - b) <= SAME_CLOCK * min(a, b)


def finite_number(field: str) -> float | None:
    """What a driver or a system file tells as a number; None for anything else, such as `[N/A]`."""
    try:
        value = float(field)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
