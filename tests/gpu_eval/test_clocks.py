"""What nvidia-smi prints is read where it makes sense and never believed to."""

import subprocess
from pathlib import Path

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
