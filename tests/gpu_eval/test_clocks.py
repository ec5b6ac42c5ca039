"""What a driver says is read where it makes sense and never believed to."""

import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_eval import clocks
from gpu_eval.clocks import ClockLog, ClockReading, ask_nvidia_smi, parse_reading, same_clock


def test_a_line_is_read() -> None:
    assert parse_reading("1980, 43\n") == ClockReading(1980, 43)
    assert parse_reading("1980, [N/A]") == ClockReading(1980, None)
    assert parse_reading("1755, 60\n210, 30\n") == ClockReading(1755, 60)


@pytest.mark.parametrize(
    "text",
    ["", "\n", "1980", "1980, 43, 7", "[N/A], 43", "0, 43", "-5, 43", "nan, 1", "inf, 1", "1e9, 1", "No devices"],
)
def test_nonsense_is_no_reading(text: str) -> None:
    assert parse_reading(text) is None


@given(st.text())
def test_no_text_raises(text: str) -> None:
    parse_reading(text)


def test_a_log_keeps_its_readings_and_asks_no_more_after_a_failure() -> None:
    answers = iter(["1980, 40", "1970, 41", "driver error", "1960, 42"])
    asked: list[str] = []

    def ask(gpu: str) -> str:
        asked.append(gpu)
        return next(answers)

    log = ClockLog("GPU-1", ask)
    assert [log.read() for _ in range(5)] == [1980, 1970, None, None, None]
    assert log.readings == [ClockReading(1980, 40), ClockReading(1970, 41)]
    assert asked == ["GPU-1"] * 3


def test_one_percent_is_the_same_clock() -> None:
    assert same_clock(1980, 1980 * 1.009)
    assert not same_clock(1980 * 1.011, 1980)
    assert same_clock(None, 1980)
    assert same_clock(1980, None)


def smi(folder: Path, script: str) -> str:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return str(program)


def test_the_program_is_asked_for_one_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = smi(tmp_path, 'echo "1980, 43"; echo "$@" >&2; [ "$3" = "--id=GPU-7" ]')
    monkeypatch.setattr(clocks.shutil, "which", lambda name: program)
    assert parse_reading(ask_nvidia_smi("GPU-7")) == ClockReading(1980, 43)
    assert ask_nvidia_smi("GPU-8") == "", "its exit code says that it failed"


def test_a_missing_broken_or_hanging_program_is_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clocks.shutil, "which", lambda name: None)
    assert ask_nvidia_smi("0") == ""
    monkeypatch.setattr(clocks.shutil, "which", lambda name: str(tmp_path / "absent"))
    assert ask_nvidia_smi("0") == ""

    def hang(*arguments: object, **options: object) -> None:
        raise subprocess.TimeoutExpired("nvidia-smi", 5)

    monkeypatch.setattr(clocks.subprocess, "run", hang)
    monkeypatch.setattr(clocks.shutil, "which", lambda name: "nvidia-smi")
    assert ask_nvidia_smi("0") == ""


class Nvml:
    """The driver's library with one GPU; functions in `failing` return an error."""

    def __init__(self, *failing: str) -> None:
        self.failing = failing

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, device: Any) -> int:
        device._obj.value = 7
        return int("uuid" in self.failing or uuid != b"GPU-7")

    def nvmlDeviceGetClockInfo(self, device: Any, kind: int, mhz: Any) -> int:
        assert (device.value, kind) == (7, 1)
        mhz._obj.value = 1980
        return int("clock" in self.failing)

    def nvmlDeviceGetTemperature(self, device: Any, sensor: int, celsius: Any) -> int:
        assert (device.value, sensor) == (7, 0)
        celsius._obj.value = 43
        return int("temperature" in self.failing)


def test_the_drivers_library_is_asked_before_nvidia_smi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clocks, "ask_nvidia_smi", lambda gpu: f"1755, {len(gpu)}")
    for library, gpu, expected in (
        (Nvml(), "GPU-7", ClockReading(1980, 43)),
        (Nvml("temperature"), "GPU-7", ClockReading(1980, None)),
        (Nvml("clock"), "GPU-7", ClockReading(1755, 5)),
        (Nvml("uuid"), "GPU-7", ClockReading(1755, 5)),
        (Nvml(), "0", ClockReading(1755, 1)),
        (None, "GPU-7", ClockReading(1755, 5)),
    ):
        monkeypatch.setattr(clocks, "_nvml", lambda found=library: found)
        assert parse_reading(clocks.ask_gpu(gpu)) == expected


@pytest.mark.parametrize(
    "library", [OSError("no such file"), SimpleNamespace(), SimpleNamespace(nvmlInit_v2=lambda: 9)]
)
def test_a_library_that_is_absent_foreign_or_does_not_start_is_none(
    library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(name: str) -> Any:
        if isinstance(library, Exception):
            raise library
        return library

    monkeypatch.setattr(clocks.ctypes, "CDLL", load)
    assert clocks._nvml.__wrapped__() is None


def test_asking_that_takes_long_comes_to_an_end() -> None:
    asked: list[str] = []

    def ask(gpu: str) -> str:
        asked.append(gpu)
        time.sleep(0.02)
        return "1980, 43"

    log = ClockLog("GPU-1", ask, asking_s=0.03)
    assert [log.read() for _ in range(4)][2:] == [None, None]
    assert len(asked) <= 2
