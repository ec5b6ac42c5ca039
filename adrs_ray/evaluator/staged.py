"""Evaluators of tasks with stages: each job goes to the slots of its stage.

On one machine a task's CPU stages share the CPU slots. A stage that needs GPUs has slots of its own, one per share of
the GPUs that the machine shows; where two of them lie on one device, they take turns there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Self, TypeAlias

from adrs_ray.candidate import Verdict
from adrs_ray.config import EvaluatorConfig
from adrs_ray.errors import UsageError
from adrs_ray.evaluator import EvaluationJob, Evaluator
from adrs_ray.evaluator.gpus import DeviceTurns, groups_of, visible_devices
from adrs_ray.evaluator.local import LocalEvaluator
from adrs_ray.stages_here import way_out
from adrs_ray.task import Stage, Task


class StagedEvaluator:
    """An `Evaluator` over one evaluator per stage; two stages may have the same one."""

    def __init__(self, by_stage: Mapping[str, Evaluator], last: str) -> None:
        """`last`: the stage that is meant where a job names none."""
        self._by_stage = dict(by_stage)
        self._last = last
        self._all = list({id(evaluator): evaluator for evaluator in by_stage.values()}.values())

    @property
    def slots(self) -> int:
        """How many evaluations of one stage run at once, in the stage that has most slots.

        A candidate is in one stage at a time: with one slot in each, candidates can go one by one.
        """
        return max(evaluator.slots for evaluator in self._all)

    async def start(self) -> None:
        """Start all slots, or none: raises what the first that failed raised."""
        outcomes = await asyncio.gather(*(each.start() for each in self._all), return_exceptions=True)
        problem = next((outcome for outcome in outcomes if isinstance(outcome, BaseException)), None)
        if problem is not None:
            await self.close()
            raise problem

    async def __aenter__(self) -> Self:
        """`start`, for `async with`; what ends the block closes the evaluator."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def evaluate(self, job: EvaluationJob) -> Verdict:
        """As the stage's own evaluator. Raises RuntimeError for a stage that is not served here."""
        evaluator = self._by_stage.get(job.stage or self._last)
        if evaluator is None:
            served = ", ".join(self._by_stage)
            raise RuntimeError(f"stage {job.stage or self._last} is not served here, only {served}")
        return await evaluator.evaluate(job)

    async def close(self) -> None:
        await asyncio.gather(*(each.close() for each in self._all))


class GpuSlots:
    """An `Evaluator` of the stage that needs GPUs: a slot for each group of devices."""

    def __init__(self, task: Task, config: EvaluatorConfig, stage: Stage, groups: Sequence[str], turns: DeviceTurns):
        one = config.model_copy(update={"slots": 1})
        self._slots = [(group, LocalEvaluator(task, one, [stage.name], group)) for group in groups]
        self._free: asyncio.Queue[tuple[str, LocalEvaluator]] = asyncio.Queue()
        for slot in self._slots:
            self._free.put_nowait(slot)
        self._gpus = stage.gpus
        self._turns = turns

    @property
    def slots(self) -> int:
        return len(self._slots)

    async def start(self) -> None:
        """As `LocalEvaluator.start`, of every slot."""
        outcomes = await asyncio.gather(*(slot.start() for _, slot in self._slots), return_exceptions=True)
        problem = next((outcome for outcome in outcomes if isinstance(outcome, BaseException)), None)
        if problem is not None:
            await self.close()
            raise problem

    async def evaluate(self, job: EvaluationJob) -> Verdict:
        """Wait for a free slot, and on its devices for its turn."""
        group, evaluator = await self._free.get()
        try:
            async with self._turns.on(group, self._gpus):
                return await evaluator.evaluate(job)
        finally:
            self._free.put_nowait((group, evaluator))

    async def close(self) -> None:
        await asyncio.gather(*(slot.close() for _, slot in self._slots))


LocalSlots: TypeAlias = LocalEvaluator | StagedEvaluator


def local_evaluator(task: Task, config: EvaluatorConfig, stages: Collection[str] | None = None) -> LocalSlots:
    """The evaluator of this machine for these stages, by default all: `config.slots` CPU slots, and for each stage that
    needs GPUs a slot per share of the GPUs that this machine shows, `config.gpu_slots` at the most.

    Raises UsageError, one line, when a stage needs more GPUs than there are, or the task has no such stage.
    """
    wanted = task.spec.all_stages if stages is None else [task.stage(name) for name in stages]
    if not any(stage.gpus for stage in wanted):
        return LocalEvaluator(task, config, [stage.name for stage in wanted])
    devices, turns = visible_devices(), DeviceTurns()
    by_stage: dict[str, Evaluator] = {}
    cpu_stages = [stage.name for stage in wanted if not stage.gpus]
    if cpu_stages:
        by_stage |= dict.fromkeys(cpu_stages, LocalEvaluator(task, config, cpu_stages))
    for stage in wanted:
        if stage.gpus:
            groups = groups_of(devices, stage)[: config.gpu_slots]
            if not groups:
                raise UsageError(
                    f"stage {stage.name} of task {task.name} needs {stage.gpus:g} GPU{'s' if stage.gpus > 1 else ''}, "
                    f"this machine shows {len(devices) or 'none'}{way_out(task.spec.stages)}"
                )
            by_stage[stage.name] = GpuSlots(task, config, stage, groups, turns)
    return StagedEvaluator(by_stage, wanted[-1].name)
