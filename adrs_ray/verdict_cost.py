"""What a verdict costs: CPU seconds of everything that makes it, judge, fork server and the candidate's processes."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import asdict, dataclass

from adrs_ray.candidate import Evaluation, Failure
from adrs_ray.config import EvaluatorConfig
from adrs_ray.errors import RunError
from adrs_ray.evaluator import EvaluationJob, Evaluator, processes
from adrs_ray.evaluator.staged import local_evaluator
from adrs_ray.task import Split, Task

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class VerdictCost:
    """One verdict, after one that is not counted (cases are made once per evaluator, compiled code is loaded)."""

    cpu_s: float
    """All of it, to the kernel's tick of 10 ms."""
    candidate_cpu_s: float
    wall_s: float

    def to_json(self) -> dict[str, float]:
        return asdict(self)


def verdict_cost(task: Task, split: Split, source: str | None = None, repeats: int = 3) -> VerdictCost:
    """Mean cost of a verdict on `source` (default: the seed) with one slot; nothing else may use this process.

    Of a task with stages, in the last one. Raises UsageError when the task cannot be judged here and RunError when the
    program fails.
    """
    return asyncio.run(_measure(task, split, task.seed_source if source is None else source, repeats))


async def _measure(task: Task, split: Split, source: str, repeats: int) -> VerdictCost:
    before = set(processes.descendants(os.getpid()))
    async with local_evaluator(task, EvaluatorConfig(slots=1, gpu_slots=1), [""]) as evaluator:
        servers = [pid for pid in processes.descendants(os.getpid()) if pid not in before]
        await _one(evaluator, split, source)
        cpu_s, wall_s = _cpu_s(servers), time.monotonic()
        candidate_s = 0.0
        for _ in range(repeats):
            candidate_s += await _one(evaluator, split, source)
        cpu_s, wall_s = _cpu_s(servers) - cpu_s, time.monotonic() - wall_s
    return VerdictCost(cpu_s / repeats, candidate_s / repeats, wall_s / repeats)


async def _one(evaluator: Evaluator, split: Split, source: str) -> float:
    verdict = await evaluator.evaluate(EvaluationJob("cost", source, split))
    if isinstance(verdict, Failure):
        raise RunError(f"the program fails on {split}: {verdict.kind.value}: {verdict.detail}")
    assert isinstance(verdict, Evaluation)
    return sum(case.cpu_s for case in verdict.cases)


def _cpu_s(servers: list[int]) -> float:
    """CPU seconds of this process, of the fork servers and of the candidates that they have waited for."""
    ticks = 0
    for pid in servers:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        ticks += sum(int(field) for field in fields[11:15])  # utime, stime, cutime, cstime: proc_pid_stat(5)
    return time.process_time() + ticks / _TICKS_PER_S
