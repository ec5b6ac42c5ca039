"""How GPUs of this machine are, by nvidia-smi, and when one is not to be measured on.

What nvidia-smi says is not trusted to have any form: what cannot be read is unknown, and a machine without it is never
held against a device.
"""

from __future__ import annotations

import csv
import io
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

CHECK_EVERY_S = 10.0
"""Between two checks of a device that is well, and of one that is quarantined."""
QUERY_TIMEOUT_S = 15.0
FOREIGN_MIB = 4096
"""Memory that may be in use on a device between two candidates: of the driver, and of a judge that computes there."""
HOT_C = 95.0
"""Beyond what any data-centre GPU bears before it slows down by itself."""
BAD_CHECKS = 2
"""In a row, before a device is quarantined: the last candidate's memory takes a moment to be given back."""
GOOD_CHECKS = 3
"""In a row, before it is released."""
SLOWDOWNS: Mapping[int, str] = {
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}
"""Bits of NVML's clock event reasons that make a timing worthless; a power cap is normal under load."""

_FIELDS = ("index", "uuid", "memory.used", "memory.total", "temperature.gpu", "ecc.errors.uncorrected.volatile.total")
_REASONS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")
"""The same, as newer and older drivers call it."""
_SICK = ("gpu is lost", "fallen off the bus", "requires reset", "unknown error", "err!")
"""What nvidia-smi says of, or in place of a figure of, a device that is broken."""


@dataclass(frozen=True, slots=True)
class DeviceState:
    """One device; None where nvidia-smi does not say."""

    index: str
    uuid: str
    used_mib: float | None
    total_mib: float | None
    temperature_c: float | None
    ecc_errors: int | None
    """Uncorrected, since the driver was loaded."""
    slowdowns: tuple[str, ...] = ()
    broken: str | None = None
    """What nvidia-smi says in place of a figure when the device does not work."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one question to nvidia-smi gave: states of the devices asked for, or why there are none."""

    states: tuple[DeviceState, ...] = ()
    unknown: str | None = None
    broken: str | None = None
    """nvidia-smi itself says that a device does not work."""


def read_devices(devices: str) -> Reading:
    """The devices named as in CUDA_VISIBLE_DEVICES, by index or UUID. Never raises for what nvidia-smi does."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return Reading(unknown="nvidia-smi is not installed")
    if not devices:
        return Reading(unknown="no device was named")
    said = ""
    for reason in _REASONS:
        command = [
            program, f"--query-gpu={','.join((*_FIELDS, reason))}", "--format=csv,noheader,nounits", f"--id={devices}"
        ]  # fmt: skip
        try:
            done = subprocess.run(
                command, capture_output=True, timeout=QUERY_TIMEOUT_S, check=False, env=_environment()
            )
        except (OSError, subprocess.SubprocessError) as error:
            return Reading(unknown=f"nvidia-smi did not answer: {type(error).__name__}")
        said = done.stdout.decode(errors="replace")[:100_000]
        if done.returncode == 0:
            return parse(said, devices)
        said = " ".join((said + " " + done.stderr.decode(errors="replace")[:10_000]).split())[:200]
        if "not a valid field" not in said.lower():
            break
    if any(word in said.lower() for word in _SICK):
        return Reading(broken=said)
    return Reading(unknown=f"nvidia-smi failed: {said or 'it said nothing'}")


def parse(output: str, devices: str) -> Reading:
    """What `read_devices` asks nvidia-smi for; any text gives a Reading."""
    states = []
    try:
        for row in csv.reader(io.StringIO(output.replace("\0", "")), skipinitialspace=True):
            if len(row) == len(_FIELDS) + 1:
                states.append(_state([cell.strip() for cell in row]))
    except csv.Error:
        return Reading(unknown="nvidia-smi's answer cannot be read")
    wanted = [name.strip() for name in devices.split(",")]
    found = [state for state in states if state.index in wanted or any(_is(state.uuid, name) for name in wanted)]
    if len(found) != len(wanted):
        return Reading(unknown=f"nvidia-smi told of {len(found)} of {len(wanted)} devices")
    return Reading(tuple(found))


def trouble(states: Sequence[DeviceState], exclusive: bool) -> str | None:
    """Why the devices are not to be measured on now, one line; None when nothing is known against them.

    `exclusive`: nobody else is meant to hold memory there between two candidates.
    """
    for state in states:
        if state.broken is not None:
            return f"GPU {state.index} is broken: nvidia-smi says {state.broken!r}"
        if state.ecc_errors:
            return f"GPU {state.index} has {state.ecc_errors} uncorrected ECC errors since the driver was loaded"
        if state.slowdowns:
            return f"GPU {state.index} is slowed down: {', '.join(state.slowdowns)}"
        if state.temperature_c is not None and state.temperature_c >= HOT_C:
            return f"GPU {state.index} has {state.temperature_c:.0f} degrees Celsius"
        if exclusive and state.used_mib is not None and state.used_mib > FOREIGN_MIB:
            return f"GPU {state.index}: another process holds {state.used_mib:.0f} MiB of its memory"
    return None


class Health:
    """What a slot makes of the readings of its devices, one after the other."""

    def __init__(self, exclusive: bool) -> None:
        self._exclusive = exclusive
        self._known = False
        """nvidia-smi has answered once: from then on its silence counts."""
        self._bad = 0
        self._good = 0
        self._forever = False
        self.trouble: str | None = None
        """What is wrong as of the last reading, or since a quarantine; None: jobs may begin."""
        self.quarantined: str | None = None
        """One line once it has lasted: the slot is out until it is released."""

    def tell(self, reading: Reading) -> None:
        """One more reading."""
        wrong = self._wrong(reading)
        if self._forever:
            return
        if wrong is not None:
            self._good = 0
            self._bad += 1
            self.trouble = wrong
            self._forever = any(state.ecc_errors for state in reading.states)
            if self._bad >= BAD_CHECKS or self._forever:
                self.quarantined = f"quarantined: {wrong}"
            return
        self._bad = 0
        self._good += 1
        if self.quarantined is None or self._good >= GOOD_CHECKS:
            self.trouble = self.quarantined = None

    def _wrong(self, reading: Reading) -> str | None:
        if reading.broken is not None:
            return f"nvidia-smi says {reading.broken!r}"
        if reading.unknown is not None:
            return f"the device cannot be checked any more: {reading.unknown}" if self._known else None
        self._known = True
        return trouble(reading.states, self._exclusive)


def _state(row: Sequence[str]) -> DeviceState:
    index, uuid, used, total, temperature, ecc, reasons = row
    broken = next((cell for cell in row if any(word in cell.lower() for word in _SICK)), None)
    errors = _number(ecc)
    return DeviceState(
        index=index,
        uuid=uuid,
        used_mib=_number(used),
        total_mib=_number(total),
        temperature_c=_number(temperature),
        ecc_errors=None if errors is None else int(errors),
        slowdowns=_slowdowns(reasons),
        broken=None if broken is None else broken[:100],
    )


def _number(cell: str) -> float | None:
    """A figure that is finite and not negative, else None: `[N/A]`, `[Not Supported]` and what else is printed."""
    try:
        value = float(cell) if cell.isascii() and len(cell) <= 20 else None
    except ValueError:
        return None
    return value if value is not None and 0 <= value < 1e15 else None


def _slowdowns(cell: str) -> tuple[str, ...]:
    try:
        bits = int(cell, 16) if cell.isascii() and len(cell) <= 20 else 0
    except ValueError:
        return ()
    return tuple(name for bit, name in SLOWDOWNS.items() if bits > 0 and bits & bit)


def _is(uuid: str, name: str) -> bool:
    """CUDA takes any beginning of a UUID that is long enough."""
    return len(name) > 4 and uuid.lower().startswith(name.lower())


def _environment() -> dict[str, str]:
    """As ours, but for the language of its answers."""
    return {**os.environ, "LC_ALL": "C"}
