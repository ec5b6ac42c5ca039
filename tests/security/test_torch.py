"""torch in the jail: imported once in the fork server, its threads started and capped in the child."""

from __future__ import annotations

from pathlib import Path

import pytest

from adrs_ray.candidate import Evaluation, Failure
from adrs_ray.config import EvaluatorConfig
from adrs_ray.evaluator import device_nodes
from adrs_ray.evaluator.doctor import device_report, evaluate_once
from tests.evaluator.fake_driver import write_driver
from tests.evaluator.tiny_task import ADAPTER, write_task

pytestmark = pytest.mark.torch

ONE = EvaluatorConfig(slots=1)
PRELOADED = "preload: [torch]\ncpus: 2"
MULTIPLIES = """
import os
import torch

def solve(x):
    before = len(os.listdir("/proc/self/task"))
    assert before == 1, "the fork server's import started threads, or prepare() did"
    torch.set_num_threads(@THREADS@)
    left = torch.ones(600, 600)
    assert float((left @ left).sum()) == 600.0**3
    torch.sin(torch.ones(4_000_000)).sum()
    after = len(os.listdir("/proc/self/task"))
    assert after > 1, after
    return float(x.sum())
"""


@pytest.fixture(autouse=True)
def torch_is_there() -> None:
    pytest.importorskip("torch")


@pytest.mark.parametrize("limits", ["", "device_memory_mb: 1024"])
def test_a_product_of_matrices_runs_on_threads_that_the_child_starts(tmp_path: Path, limits: str) -> None:
    task = write_task(tmp_path, extra=PRELOADED, limits=limits, timeout_s=60)
    verdict = evaluate_once(task, MULTIPLIES.replace("@THREADS@", "2"), "validation", ONE)
    assert isinstance(verdict, Evaluation), verdict
    assert verdict.evidence.denied.keys() <= {"sched_setaffinity"}


def test_torch_cannot_have_more_threads_than_the_task_allows(tmp_path: Path) -> None:
    task = write_task(tmp_path, extra=PRELOADED, timeout_s=60)
    verdict = evaluate_once(task, MULTIPLIES.replace("@THREADS@", "16"), "validation", ONE)
    assert isinstance(verdict, Failure), verdict
    assert verdict.evidence.denied["thread"] > 0


def test_a_spare_imports_torch_before_it_has_a_program(tmp_path: Path) -> None:
    adapter = ADAPTER + "\n\ndef prepare():\n    import torch\n\n    torch.ones(3).sum().item()\n"
    source = "import sys\nREADY = 'torch' in sys.modules\ndef solve(x):\n    assert READY\n    return float(x.sum())\n"
    verdict = evaluate_once(
        write_task(tmp_path, adapter=adapter, extra="spares: 1", timeout_s=60), source, "train", ONE
    )
    assert isinstance(verdict, Evaluation), verdict
    assert max(case.cpu_s for case in verdict.cases) < 0.2


def test_the_doctor_tells_a_gpu_that_cannot_be_used_from_one_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(device_nodes, "ROOT", tmp_path / "bare")
    assert device_report() == []
    monkeypatch.setattr(device_nodes, "ROOT", write_driver(tmp_path / "machine"))
    ((name, holds, detail),) = device_report()
    assert (name, holds) == ("GPU in the jail", False)
    assert detail.startswith("crash: ")
    assert "\n" not in detail
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    ((name, holds, detail),) = device_report()
    assert (name, holds) == ("GPU in the jail", False)
    assert "GPU 7 is not among the 2" in detail
