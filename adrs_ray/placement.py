"""Where the seed programs of a task stand on train: verdicts on them and on the baselines they are held against."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from adrs_ray.candidate import Verdict
from adrs_ray.config import EvaluatorConfig
from adrs_ray.evaluator import EvaluationJob
from adrs_ray.evaluator.staged import local_evaluator
from adrs_ray.task import Task, read_program


def place(task: Task) -> Mapping[str, Verdict]:
    """Verdicts on `seed`, the seeds by level, and the trivial and the best human baseline, as far as there are any.

    Of a task with stages, in the last one. Raises UsageError when the task cannot be judged here.
    """
    wanted = [*task.seeds(), *(name for name in (task.spec.trivial, task.spec.best_human) if name)]
    programs = {name: path for name, path in task.programs().items() if name in wanted}
    sources = {"seed": task.seed_source, **{name: read_program(path) for name, path in programs.items()}}
    return asyncio.run(_judge(task, sources))


async def _judge(task: Task, sources: Mapping[str, str]) -> dict[str, Verdict]:
    by_source: dict[str, Verdict] = {}
    async with local_evaluator(task, EvaluatorConfig(slots=1, gpu_slots=1), [""]) as evaluator:
        for name, source in sources.items():
            if source not in by_source:
                by_source[source] = await evaluator.evaluate(EvaluationJob(name, source, "train"))
    return {name: by_source[source] for name, source in sources.items()}
