"""Programs in slots with GPUs: what they see and open, and the memory they may have. A made-up driver, real jails."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from adrs_ray.candidate import Evaluation, Failure, FailureKind, Verdict
from adrs_ray.config import EvaluatorConfig
from adrs_ray.errors import UsageError
from adrs_ray.evaluator import EvaluationJob, device_nodes, slot
from adrs_ray.evaluator.device_memory import DeviceMemoryWatch
from adrs_ray.evaluator.forkserver import _opens_devices
from adrs_ray.evaluator.local import LocalEvaluator
from adrs_ray.evaluator.processes import descendants
from tests.evaluator.fake_driver import UUIDS, write_driver
from tests.evaluator.tiny_task import SEED, write_task

ONE = EvaluatorConfig(slots=1, retries=0)
USES_GPUS = "device_memory_mb: 512"
LOOKS = """
import os
def opens(name):
    try:
        os.close(os.open("@ROOT@/dev/" + name, os.O_RDWR))
    except PermissionError:
        return False
    return True

def solve(x):
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "@SEEN@", os.environ
    names = ("nvidiactl", "nvidia-uvm", "nvidia1", "nvidia0", "nvidia-uvm-tools", "nvidia-modeset")
    assert [opens(name) for name in names] == @OPENED@
    return float(x.sum())
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(device_nodes, "ROOT", tmp_path / "machine")
    return write_driver(tmp_path / "machine")


def judge(folder: Path, source: str, limits: str, devices: str = "0", processes: int = 0) -> Verdict:
    task = write_task(folder / "task", limits=limits, extra="gpus: 1", timeout_s=20, processes=processes)

    async def once() -> Verdict:
        async with LocalEvaluator(task, ONE, ["full"], devices) as evaluator:
            return await evaluator.evaluate(EvaluationJob("a", source, "validation"))

    return asyncio.run(once())


def looks(root: Path, seen: str, opened: list[bool]) -> str:
    return LOOKS.replace("@ROOT@", str(root)).replace("@SEEN@", seen).replace("@OPENED@", str(opened))


def test_a_program_opens_the_nodes_of_its_slot_and_no_other(tmp_path: Path, root: Path) -> None:
    source = looks(root, UUIDS[0], [True, True, True, False, False, False])
    verdict = judge(tmp_path, source, USES_GPUS)
    assert isinstance(verdict, Evaluation), verdict
    others = ("nvidia0", "nvidia-uvm-tools", "nvidia-modeset")
    assert verdict.evidence.denied == {f"open:{root}/dev/{name}": 1 for name in others}


def test_without_device_memory_programs_see_no_gpu_though_the_slot_has_one(tmp_path: Path, root: Path) -> None:
    verdict = judge(tmp_path, looks(root, "", [False] * 6), "device_memory_mb: 0")
    assert isinstance(verdict, Evaluation), verdict


def test_a_gpu_that_is_not_there_is_refused_at_the_start(tmp_path: Path, root: Path) -> None:
    with pytest.raises(UsageError, match="GPU 5 is not among the 2"):
        judge(tmp_path, SEED, USES_GPUS, "5")


def test_reservations_pass_and_memory_that_is_used_does_not(tmp_path: Path) -> None:
    reserves = """
import mmap, time
def solve(x):
    reserved = mmap.mmap(-1, 2**40, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    held = bytearray(@MB@ * 2**20)
    for at in range(0, len(held), 4096):
        held[at] = 1
    time.sleep(0.5)
    return float(x.sum())
"""
    fits = judge(tmp_path / "fits", reserves.replace("@MB@", "100"), USES_GPUS)
    assert isinstance(fits, Evaluation), fits
    beyond = judge(tmp_path / "beyond", reserves.replace("@MB@", "600"), USES_GPUS)
    assert isinstance(beyond, Failure)
    assert (beyond.kind, beyond.detail) == (FailureKind.MEMORY, "more than 256 MB of memory (limits.memory_mb)")


def test_page_tables_are_memory_too(tmp_path: Path) -> None:
    reads = """
import mmap, time
def solve(x):
    reserved = mmap.mmap(-1, 2**38, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    for at in range(0, len(reserved), 2**21):
        reserved[at]
    time.sleep(0.5)
    return float(x.sum())
"""
    verdict = judge(tmp_path, reads, USES_GPUS)
    assert isinstance(verdict, Failure), verdict
    assert (verdict.kind, verdict.detail) == (FailureKind.MEMORY, "more than 256 MB of memory (limits.memory_mb)")


def test_memory_that_several_processes_use_is_added_up(tmp_path: Path) -> None:
    shares = """
import os, time
def solve(x):
    for _ in range(2):
        if os.fork() == 0:
            break
    held = bytearray(120 * 2**20)
    for at in range(0, len(held), 4096):
        held[at] = 1
    time.sleep(3)
    return float(x.sum())
"""
    verdict = judge(tmp_path, shares, USES_GPUS, processes=2)
    assert isinstance(verdict, Failure)
    assert verdict.kind == FailureKind.MEMORY


def test_device_memory_beyond_the_limit_ends_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held_mb = 0

    def reader() -> Mapping[int, int]:
        return dict.fromkeys(descendants(os.getpid()), held_mb * 2**20)

    monkeypatch.setattr(slot, "watch_of", lambda _devices: DeviceMemoryWatch(reader, period_s=0.02))
    source = "import time\ndef solve(x):\n    time.sleep(1.0)\n    return float(x.sum())\n"
    held_mb = 512
    fits = judge(tmp_path / "fits", source, USES_GPUS)
    assert isinstance(fits, Evaluation), fits
    held_mb = 513
    beyond = judge(tmp_path / "beyond", source, USES_GPUS)
    assert isinstance(beyond, Failure)
    assert beyond.kind == FailureKind.MEMORY
    assert beyond.detail == "more than 512 MB of GPU memory (limits.device_memory_mb)"


def test_an_error_of_torch_about_device_memory_is_one_of_memory(tmp_path: Path) -> None:
    source = "class OutOfMemoryError(RuntimeError):\n    pass\ndef solve(x):\n    raise OutOfMemoryError('CUDA')\n"
    verdict = judge(tmp_path, source, USES_GPUS)
    assert isinstance(verdict, Failure)
    assert verdict.kind == FailureKind.MEMORY


def test_an_adapter_that_opens_a_gpu_when_it_is_imported_is_found_out(tmp_path: Path) -> None:
    os.symlink("/dev/null", tmp_path / "1")
    assert not _opens_devices(str(tmp_path))
    os.symlink("/dev/nvidia0", tmp_path / "2")
    assert _opens_devices(str(tmp_path))
