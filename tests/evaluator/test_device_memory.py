"""Memory of GPUs by process: what the driver's library and nvidia-smi say, through doubles of both."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adrs_ray.evaluator.device_memory import DeviceMemoryWatch, nvml_reader, parse_compute_apps, smi_reader, watch_of
from adrs_ray.evaluator.device_nodes import DeviceAccess

GIB = 2**30
NOT_AVAILABLE = 2**64 - 1


class FakeNvml:
    """The driver's library with made-up processes on its devices."""

    def __init__(self, devices: list[list[tuple[int, int]]], init: int = 0) -> None:
        self._devices = devices
        self._init = init

    def nvmlInit_v2(self) -> int:
        return self._init

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:
        count._obj.value = len(self._devices)
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: int, device: Any) -> int:
        device._obj.value = index + 1
        return 0

    def nvmlDeviceGetComputeRunningProcesses_v3(self, device: ctypes.c_void_p, count: Any, found: Any) -> int:
        running = self._devices[(device.value or 0) - 1]
        room, count._obj.value = count._obj.value, len(running)
        if room < len(running):
            return 7
        for place, (pid, used) in enumerate(running):
            found[place].pid, found[place].used_bytes = pid, used
        return 0


def read_nvml(devices: list[list[tuple[int, int]]]) -> Mapping[int, int]:
    reader = nvml_reader(FakeNvml(devices))
    assert reader is not None
    return reader()


def test_the_library_tells_processes_of_all_devices() -> None:
    assert read_nvml([[(7, GIB), (8, 5)], [(7, 2 * GIB), (9, NOT_AVAILABLE)], []]) == {7: 3 * GIB, 8: 5}


def test_more_processes_than_expected_are_asked_for_again() -> None:
    many = [(pid, 1) for pid in range(1, 200)]
    assert read_nvml([many]) == dict(many)


def test_a_library_that_is_too_old_or_does_not_start_is_no_reader() -> None:
    assert nvml_reader(object()) is None
    assert nvml_reader(FakeNvml([], init=9)) is None


def test_nvidia_smi_is_asked_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert smi_reader() is None
    script = tmp_path / "nvidia-smi"
    script.write_text('#!/bin/sh\n[ "$1" = "--query-compute-apps=pid,used_memory" ] && echo "12, 300"\n')
    script.chmod(0o755)
    reader = smi_reader()
    assert reader is not None
    assert reader() == {12: 300 * 2**20}
    script.write_text("#!/bin/sh\necho '12, 300'\nexit 9\n")
    assert reader() == {}
    script.unlink()
    assert reader() == {}


def test_only_lines_with_two_numbers_count() -> None:
    text = "12, 300\n12, 5\n13, [N/A]\nNo running processes found\n-3, 4\n9999999999999, 1\n14, 0\n"
    assert parse_compute_apps(text) == {12: 305 * 2**20, 14: 0}


@given(st.text())
def test_whatever_is_printed_is_read_without_an_error(text: str) -> None:
    assert all(pid >= 0 and used >= 0 for pid, used in parse_compute_apps(text).items())


def test_the_watch_asks_when_somebody_wants_to_know_and_survives_a_reader_that_breaks() -> None:
    answers = iter([{5: 1}, RuntimeError("driver lost"), {5: 3}])
    asked = threading.Semaphore(0)

    def reader() -> Mapping[int, int]:
        asked.release()
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    watch = DeviceMemoryWatch(reader, period_s=0.001)
    try:
        assert not asked.acquire(timeout=0.05), "nobody has asked yet"
        for _ in range(3):
            watch.used_bytes([5])
            assert asked.acquire(timeout=10)
        deadline = threading.Event()
        while watch.used_bytes([5, 6]) != 3:
            assert not deadline.wait(0.001)
        assert watch.used_bytes([6]) == 0
    finally:
        watch.close()
        watch.close()


def test_there_is_no_watch_where_nothing_is_opened_to_candidates() -> None:
    before = threading.active_count()
    assert watch_of(DeviceAccess(str(os.getpid()))) is None
    assert threading.active_count() == before
