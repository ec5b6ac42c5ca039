"""Which archives, parent rules and adaptations are worth having: equal budgets, paired seeds, a test fixed beforehand.

    python -m tests.benchmarks.search [--study FILE] [--landscapes smooth,prism] [--workers 2] [--out FILE.jsonl]

Runs what the study file says and the results file does not have yet, one line of JSON per run, then prints the tables
of everything that is there as Markdown. Islands, generator, screening, admission, migration and ledger are the real
ones; the journal is in memory. Synthetic landscapes are judged in this process (`landscapes.py`), tasks in the jail.

The final score of a run is that of its best program on train, judged without noise (synthetic) or on validation
(tasks), scaled so that 0 is the seed program and 1 the optimum or the task's proven bound.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path

from adrs_ray.candidate import Completion, Evaluation, Verdict
from adrs_ray.errors import UsageError
from adrs_ray.evaluator import EvaluationJob, Evaluator
from adrs_ray.evaluator.local import LocalEvaluator
from adrs_ray.generator import GenerationRequest
from adrs_ray.generator.mutate import MutationModel
from adrs_ray.ledger import Ledger
from adrs_ray.local import LocalHost, make_models, turnstile
from adrs_ray.planting import Planting
from adrs_ray.prompt import TaskBrief
from adrs_ray.prompt.brief import brief_of
from adrs_ray.runner import IslandParts
from adrs_ray.storage.memory import MemoryJournal
from adrs_ray.task import load_task
from tests.benchmarks.landscapes import KINDS, Landscape, LandscapeEvaluator
from tests.benchmarks.search_study import (
    STUDY,
    Job,
    Result,
    confirming_jobs,
    read_results,
    read_study,
    screening_jobs,
)
from tests.benchmarks.search_tables import challenger, markdown


class SeedOnly(MutationModel):
    """Random search: whoever is chosen as parent, the seed program is mutated."""

    def __init__(self, seed_source: str, redraws: int, max_mutations: int) -> None:
        super().__init__(redraws, max_mutations)
        self._seed_source = seed_source

    async def complete(self, request: GenerationRequest) -> Completion:
        return await super().complete(replace(request, operator="mutate", parents=(self._seed_source,)))


@dataclass(frozen=True, slots=True)
class Found:
    source: str
    train: float
    evaluations: int
    failures: dict[str, int]


async def search(job: Job, brief: TaskBrief, evaluator: Evaluator) -> Found:
    """The best program on train that a run finds."""
    config = job.config
    ledger = await Ledger.open(MemoryJournal(), config)
    await ledger.start_epoch()
    models = dict(make_models(config))
    if job.search == "random":
        models["mutate"] = SeedOnly(brief.seed_source, config.generator.redraws, config.generator.max_mutations)
    counting = CountingEvaluator(evaluator)
    parts = IslandParts(config, brief, models, counting, ledger, turnstile(evaluator, config))
    planting = Planting(parts, brief.name, asyncio.Event())
    await planting.settle(())
    await planting.grow()
    host = LocalHost(parts)
    await asyncio.gather(*(host.run_island(number) for number in range(config.islands.count)))
    status = await ledger.status()
    best = status.leaders[0]
    source = (await ledger.texts([best.source]))[best.source]
    return Found(source, best.score, counting.evaluations, dict(status.failures))


class CountingEvaluator:
    """Another evaluator, and how often it was asked."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self.evaluations = 0
        self.slots = evaluator.slots

    async def start(self) -> None: ...

    async def evaluate(self, job: EvaluationJob) -> Verdict:
        self.evaluations += 1
        return await self._evaluator.evaluate(job)

    async def close(self) -> None: ...


async def on_landscape(job: Job) -> tuple[Found, float]:
    """What was found, and its true score."""
    landscape = Landscape(next(kind for kind in KINDS if kind == job.landscape), job.seed)
    found = await search(job, landscape.brief, LandscapeEvaluator(landscape))
    return found, landscape.value(found.source)


async def on_task(job: Job) -> tuple[Found, float]:
    """What was found, and its score on validation, 0 being the seed's and 1 the bound of these tasks."""
    task = load_task(job.landscape)
    async with LocalEvaluator(task, job.config.evaluator) as evaluator:
        found = await search(job, brief_of(task, job.config), evaluator)
        verdicts = [
            await evaluator.evaluate(EvaluationJob("best", source, "validation"))
            for source in (task.seed_source, found.source)
        ]
    # A champion that fails on validation is worth nothing there.
    seed, best = (verdict.score if isinstance(verdict, Evaluation) else 0.0 for verdict in verdicts)
    return found, (best - seed) / (1.0 - seed)


def run(job: Job) -> Result:
    """One run, in this process."""
    gc.collect()
    before = _cpu_s()
    found, score = asyncio.run(on_landscape(job) if job.landscape in KINDS else on_task(job))
    spent = round(_cpu_s() - before, 3)
    return Result(
        job.key, job.variant, job.landscape, job.seed, score, found.train, found.evaluations, found.failures, spent
    )


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _start_worker() -> None:
    os.nice(10)
    gc.disable()  # a run makes many syntax trees and few cycles: a fifth of its time would go into looking for them


def run_all(jobs: Sequence[Job], path: Path, workers: int) -> None:
    """Run what the file does not have, and append it."""
    known = read_results(path)
    missing = [job for job in jobs if job.key not in known]
    started, done = time.monotonic(), 0
    with (
        ProcessPoolExecutor(workers, get_context("spawn"), _start_worker) as pool,
        path.open("a", encoding="utf-8") as file,
    ):
        for future in as_completed([pool.submit(run, job) for job in missing]):
            file.write(json.dumps(asdict(future.result())) + "\n")
            file.flush()
            done += 1
            if done % 50 == 0 or done == len(missing):
                print(f"{done}/{len(missing)} runs, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, default=STUDY)
    parser.add_argument("--landscapes", help="comma-separated (default: all synthetic ones)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("search_study.jsonl"), help="results, added to")
    options = parser.parse_args()
    try:
        study = read_study(options.study)
        names = options.landscapes.split(",") if options.landscapes else list(study.synthetic.landscapes)
        if unknown := set(names) - {*study.synthetic.landscapes, *study.real.landscapes}:
            raise UsageError(f"--landscapes: the study has no {', '.join(sorted(unknown))}")
    except UsageError as error:
        parser.error(str(error))
    run_all(screening_jobs(study, names), options.out, options.workers)
    found = challenger(study, read_results(options.out).values())
    run_all(confirming_jobs(study, names, found), options.out, options.workers)
    everywhere = [*study.synthetic.landscapes, *study.real.landscapes]
    jobs = screening_jobs(study, everywhere) + confirming_jobs(study, everywhere, found)
    keys = {job.key for job in jobs}
    print(markdown(study, [result for key, result in read_results(options.out).items() if key in keys]))


if __name__ == "__main__":
    main()
