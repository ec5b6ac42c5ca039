"""SM clock and temperature of a GPU, as nvidia-smi tells them; what it prints is never trusted to be in order."""

from __future__ import annotations

import math
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

QUERY = ("clocks.sm", "temperature.gpu")
TIMEOUT_S = 5.0
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
    clock, temperature = (_number(field) for field in fields)
    if clock is None or not 0 < clock < 100_000:
        return None
    return ClockReading(clock, temperature if temperature is not None and -50 < temperature < 250 else None)


def ask_nvidia_smi(gpu: str) -> str:
    """What nvidia-smi prints for `QUERY` about one GPU (index or UUID); empty where there is none or it fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    command = [program, f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader,nounits", f"--id={gpu}"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""


class ClockLog:
    """Readings of one GPU in the order in which they were made; it asks no more after the first that fails."""

    def __init__(self, gpu: str, ask: Callable[[str], str] = ask_nvidia_smi) -> None:
        self._gpu = gpu
        self._ask = ask
        self._silent = False
        self.readings: list[ClockReading] = []

    def read(self) -> float | None:
        """The SM clock now, MHz, or None."""
        reading = None if self._silent else parse_reading(self._ask(self._gpu))
        if reading is None:
            self._silent = True
            return None
        self.readings.append(reading)
        return reading.sm_mhz


def same_clock(a: float | None, b: float | None) -> bool:
    """Whether two SM clocks are within `SAME_CLOCK` of the slower; what is not known is not held against it."""
    return a is None or b is None or abs(a - b) <= SAME_CLOCK * min(a, b)


def _number(field: str) -> float | None:
    try:
        value = float(field)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
