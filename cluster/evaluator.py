"""Evaluation slots as Ray actors, and the pool that islands call.

One actor is one slot with its own fork server. A lost slot is started again by Ray; what it was evaluating is evaluated
elsewhere, and the verdict says how often it was started.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayActorError

from adrs_ray.candidate import Failure, FailureKind, Verdict
from adrs_ray.config import EvaluatorConfig, RunConfig
from adrs_ray.evaluator import EvaluationJob
from adrs_ray.evaluator.local import LocalEvaluator
from adrs_ray.isomorphic import disguised
from adrs_ray.task import Task, load_task
from cluster.calls import answer

LOSSES_ALLOWED = 3
"""Slots that may die under one candidate before it is given up."""


class EvaluatorActor:
    """One slot."""

    def __init__(self, task: str, config: EvaluatorConfig, isomorphic: bool) -> None:
        self._task = task
        self._config = config
        self._isomorphic = isomorphic
        self._started: asyncio.Task[LocalEvaluator] | None = None

    async def start(self) -> None:
        """Make the fork server ready. Raises UsageError when this node cannot jail or has no such task."""
        await self._evaluator()

    async def evaluate(self, job: EvaluationJob) -> Verdict:
        return await (await self._evaluator()).evaluate(job)

    async def close(self) -> None:
        if self._started is not None:
            await (await self._started).close()

    async def _evaluator(self) -> LocalEvaluator:
        if self._started is None:
            self._started = asyncio.create_task(self._make())
        return await self._started

    async def _make(self) -> LocalEvaluator:
        task = load_task(self._task)
        evaluator = LocalEvaluator(disguised(task) if self._isomorphic else task, self._config)
        await evaluator.start()
        return evaluator


def start_slots(task: Task, task_reference: str, config: RunConfig, count: int) -> list[Any]:
    """`count` evaluator actors, each reserving the task's CPUs."""
    actor = ray.remote(EvaluatorActor).options(num_cpus=task.spec.cpus, max_restarts=-1, max_concurrency=8)
    one = config.evaluator.model_copy(update={"slots": 1})
    return [actor.remote(task_reference, one, config.isomorphic) for _ in range(count)]


class RayEvaluator:
    """An `Evaluator` over evaluator actors; every island and the driver has one of its own over the same actors."""

    def __init__(self, actors: Sequence[Any]) -> None:
        self._actors = list(actors)
        self._in_flight: Counter[int] = Counter()
        self._next = 0

    @property
    def slots(self) -> int:
        return len(self._actors)

    async def start(self) -> None:
        await asyncio.gather(*(answer(actor.start.remote()) for actor in self._actors))

    async def evaluate(self, job: EvaluationJob) -> Verdict:
        losses = 0
        while True:
            slot = self._least_busy()
            self._in_flight[slot] += 1
            try:
                again = replace(job, attempts=job.attempts + losses)
                verdict: Verdict = await answer(self._actors[slot].evaluate.remote(again))
                return verdict
            except RayActorError as error:
                losses += 1
                if losses > LOSSES_ALLOWED:
                    detail = f"{losses} evaluator processes were lost while they judged it: {type(error).__name__}"
                    return Failure(FailureKind.INFRASTRUCTURE, detail, attempts=job.attempts + losses)
                await asyncio.sleep(0.5)
            finally:
                self._in_flight[slot] -= 1

    async def close(self) -> None:
        """The actors belong to the driver and end with it."""

    def _least_busy(self) -> int:
        """The slot with the fewest jobs of ours; ties go round."""
        self._next = (self._next + 1) % len(self._actors)
        order = [*range(self._next, len(self._actors)), *range(self._next)]
        slot: int = min(order, key=self._in_flight.__getitem__)
        return slot
