"""One verdict without a run, and whether this machine can jail: tried, not assumed."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adrs_ray.candidate import Evaluation, Failure, FailureKind, Verdict
from adrs_ray.config import EvaluatorConfig
from adrs_ray.errors import UsageError
from adrs_ray.evaluator import EvaluationJob
from adrs_ray.evaluator.device_nodes import device_access
from adrs_ray.evaluator.gpus import visible_devices
from adrs_ray.evaluator.staged import local_evaluator
from adrs_ray.task import Case, CaseResult, Combined, Limits, Split, Task, TaskSpec

_PROBES = Path(__file__).with_name("doctor_probes.py")


def evaluate_once(task: Task, source: str, split: Split, config: EvaluatorConfig, stage: str = "") -> Verdict:
    """One verdict of a stage ('': the last one), with one slot that is made for it.

    Raises UsageError when the task cannot be judged here, or has no such stage.
    """
    one = config.model_copy(update={"slots": 1, "gpu_slots": 1})

    async def once() -> Verdict:
        async with local_evaluator(task, one, [stage]) as evaluator:
            return await evaluator.evaluate(EvaluationJob("once", source, split, stage=stage))

    return asyncio.run(once())


def jail_report() -> list[tuple[str, bool, str]]:
    """(layer, whether it holds, detail); the first, `strict`, says whether candidates can be judged at all.

    A program that tries what a candidate must not be able to do is run as a candidate would be.
    """
    with tempfile.TemporaryDirectory(prefix="adrs-doctor-") as folder:
        secret = Path(folder, "secret.txt")
        secret.write_text("not for candidates", encoding="utf-8")
        judge = _ProbeJudge({"secret": str(secret), "worker": os.getpid()})
        try:
            verdict = _probed(folder, _PROBES.read_text(encoding="utf-8"), judge, Limits(case_timeout_s=20.0))
        except UsageError as error:
            return [("strict", False, str(error))]
    if not isinstance(verdict, Evaluation):
        return [("strict", False, f"{verdict.kind}: {verdict.detail}")]
    holds = all(judge.outcomes.values())
    rows = [("strict", holds, " + ".join(verdict.evidence.jail))]
    rows += [(name, held, "denied" if held else "NOT denied") for name, held in sorted(judge.outcomes.items())]
    return rows + device_report()


def device_report() -> list[tuple[str, bool, str]]:
    """Whether a jailed program can use a GPU, and is ended when it takes more of its memory than it may; no rows where
    there is no GPU, or no torch to ask it with."""
    devices = visible_devices()
    if not devices or importlib.util.find_spec("torch") is None:
        return []
    try:
        if not device_access(devices[0]).nodes:
            return []
        works, bounded = _on_device(_DEVICE_MB), _on_device(1)
    except UsageError as error:
        return [("GPU in the jail", False, str(error))]
    if not isinstance(works, Evaluation) or works.score != 1.0:
        told = f"{works.kind}: {works.detail}" if isinstance(works, Failure) else "a sum on the GPU was wrong"
        denied = ", ".join(works.evidence.denied)
        return [("GPU in the jail", False, f"{told} (denied: {denied or 'nothing'})")]
    ended = isinstance(bounded, Failure) and bounded.kind == FailureKind.MEMORY
    told = bounded.detail if isinstance(bounded, Failure) else "a program that took too much was not ended"
    return [("GPU in the jail", True, "a CUDA context was made"), ("GPU memory limit", ended, told)]


def _on_device(device_memory_mb: int) -> Verdict:
    """Of a program that makes a CUDA context and holds it for a while."""
    limits = Limits(case_timeout_s=120.0, memory_mb=16_384, threads=64, device_memory_mb=device_memory_mb)
    with tempfile.TemporaryDirectory(prefix="adrs-doctor-") as folder:
        return _probed(folder, _DEVICE_PROBE, _ProbeJudge({}), limits, gpus=1.0)


def _probed(folder: str, source: str, judge: _ProbeJudge, limits: Limits, gpus: float = 0.0) -> Verdict:
    """Of a probe, as a program of a task that is made in the folder. Raises UsageError."""
    adapter = Path(folder, "adapter.py")
    adapter.write_text(_ADAPTER, encoding="utf-8")
    task = Task(
        spec=TaskSpec(name="doctor", summary="probes", entry=("probe",), limits=limits, gpus=gpus),
        folder=Path(folder).resolve(),
        kind="native",
        seed_source=source,
        adapter_path=adapter,
        judge_factory=lambda: judge,
    )
    return evaluate_once(task, source, "train", EvaluatorConfig(slots=1))


_DEVICE_MB = 4096
_DEVICE_PROBE = """\
import time

import torch


def probe(public):
    ones = torch.ones(1 << 20, device="cuda")
    held = ones.sum().item() == 1 << 20
    time.sleep(3.0)
    return {"a sum on the GPU is right": held}
"""
_ADAPTER = "def run(program, public):\n    return program.probe(public)\n"


class _ProbeJudge:
    """Keeps what the probes told; a probe that was not denied shows as a hole."""

    def __init__(self, public: Mapping[str, Any]) -> None:
        self._public = public
        self.outcomes: dict[str, bool] = {}

    def cases(self, split: Split) -> Sequence[Case]:
        return (Case("probes", 0, dict(self._public)),)

    def score(self, case: Case, raw: Any) -> Mapping[str, float]:
        self.outcomes = {str(name): held is True for name, held in raw.items()}
        return {"held": float(sum(self.outcomes.values()))}

    def combine(self, results: Sequence[CaseResult]) -> Combined:
        return Combined(results[0].metrics["held"], results[0].metrics)
