"""An evaluator that gives the verdicts of a recorded run (`adrs_ray.cassette`)."""

from __future__ import annotations

import asyncio

from adrs_ray.candidate import Verdict
from adrs_ray.cassette import LOOSELY, Cassette
from adrs_ray.errors import RunError
from adrs_ray.evaluator import EvaluationJob
from adrs_ray.storage.journal import text_ref
from adrs_ray.task_spec import FULL_STAGE


class CassetteEvaluator:
    """An `Evaluator` that runs nothing."""

    def __init__(self, cassette: Cassette, slots: int = 1) -> None:
        self._cassette = cassette
        self._slots = slots
        self._free = asyncio.Semaphore(slots)

    @property
    def slots(self) -> int:
        return self._slots

    async def start(self) -> None:
        """Nothing is needed."""

    async def evaluate(self, job: EvaluationJob) -> Verdict:
        """The recorded verdict. Raises RunError when there is none, or it was given to another program."""
        async with self._free:
            await asyncio.sleep(0)  # others go on meanwhile, as beside a real evaluation
        stage = job.stage or FULL_STAGE
        recorded = self._cassette.verdicts.get((job.candidate, stage, job.split, job.repeat))
        what = f"replay: {job.candidate} on {job.split}" + ("" if stage == FULL_STAGE else f" in stage {stage}")
        if recorded is None:
            raise RunError(f"{what} was not measured when it was recorded: config, task or code differ; {LOOSELY}")
        if recorded.program is not None and recorded.program != text_ref(job.source):
            raise RunError(f"{what} is another program than was recorded: config, task or code differ; {LOOSELY}")
        return recorded.verdict

    async def close(self) -> None:
        """Nothing is held."""
