"""Stand-ins at the edges of the loop: a model that edits a literal, an evaluator that reads it."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from adrs_ray.candidate import CaseResult, Completion, Evaluation, Failure, FailureKind, Verdict
from adrs_ray.evaluator import EvaluationJob
from adrs_ray.generator import GenerationRequest
from adrs_ray.task import SPLITS, Split, Task, TaskSpec

SEED = "# EVOLVE-BLOCK-START\nVALUE = 1\n# EVOLVE-BLOCK-END\n"


def stub_task(splits: tuple[Split, ...] = SPLITS, seed: str = SEED) -> Task:
    class NoJudge:
        pass

    spec = TaskSpec(name="stub", summary="the larger VALUE the better", splits=splits)
    return Task(spec, Path("/nowhere"), "native", seed, Path("/nowhere"), NoJudge)  # type: ignore[arg-type]


class LiteralModel:
    """Adds a number to the parent's VALUE: from 0 to 3, so that duplicates happen."""

    name = "literal"

    def __init__(self, redraws: int = 2, paid: bool = False, delay_s: float = 0.0) -> None:
        self.redraws = redraws
        self.paid = paid
        self.delay_s = delay_s
        self.calls = 0

    async def complete(self, request: GenerationRequest) -> Completion:
        self.calls += 1
        await asyncio.sleep(self.delay_s)
        step = sum(request.rng_key) * 7919 % 4
        if step == 3 and len(request.rng_key) == 3:
            return Completion(None, self.name, "literal", "nothing came to mind")
        text = re.sub(r"VALUE = (\d+)", lambda m: f"VALUE = {int(m[1]) + step}", request.parents[0])
        return Completion(text, self.name, "literal")


class LiteralEvaluator:
    """Scores VALUE; every tenth value is a crash, every eleventh costs an attempt."""

    def __init__(self, slots: int = 2, delay_s: float = 0.0, cap: float = float("inf")) -> None:
        self._slots = slots
        self._cap = cap
        self.delay_s = delay_s
        self.jobs: list[EvaluationJob] = []
        self.busy = 0
        self.most_busy = 0

    @property
    def slots(self) -> int:
        return self._slots

    async def start(self) -> None: ...

    async def evaluate(self, job: EvaluationJob) -> Verdict:
        self.jobs.append(job)
        self.busy += job.split == "train"
        self.most_busy = max(self.most_busy, self.busy)
        await asyncio.sleep(self.delay_s)
        self.busy -= job.split == "train"
        found = re.search(r"VALUE = (\d+)", job.source)
        assert found is not None
        value = int(found[1])
        attempts = job.attempts + 1 + (value % 11 == 10)
        if value % 10 == 9:
            return Failure(FailureKind.CRASH, "nine", "case", attempts=attempts)
        score = min(float(value), self._cap) if job.split == "train" else -float(value % 7)
        return Evaluation(
            score, {"value": score}, (CaseResult("case", {}, 0.0, 0.0),), "unsafe", 0.0, attempts=attempts
        )

    async def close(self) -> None: ...
