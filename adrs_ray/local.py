"""A run in this process: islands on one event loop, fork servers of this machine. `adrs run --local`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from adrs_ray.config import GeneratorConfig, RunConfig
from adrs_ray.evaluator import Evaluator
from adrs_ray.evaluator.local import LocalEvaluator
from adrs_ray.generator import Model
from adrs_ray.generator.mutate import MutationModel
from adrs_ray.ledger import Ledger, RunStatus
from adrs_ray.runner import IslandLoop
from adrs_ray.search import RunResult, Search, Seed, StopSwitch
from adrs_ray.storage.runfolder import RunFolder
from adrs_ray.storage.sqlite import SqliteJournal
from adrs_ray.task import Task


def make_model(config: GeneratorConfig) -> Model:
    """The generator that a config names."""
    return MutationModel(redraws=config.redraws, max_mutations=config.max_mutations)


class LocalHost:
    """Islands as coroutines of this process.

    With one evaluation slot and a free model, candidates go one by one through the whole loop: two runs with one seed
    are then equal.
    """

    def __init__(self, config: RunConfig, seed_source: str, model: Model, evaluator: Evaluator, ledger: Ledger) -> None:
        self._config = config
        self._seed_source = seed_source
        self._model = model
        self._evaluator = evaluator
        self._ledger = ledger
        self._turnstile = asyncio.Semaphore(1) if evaluator.slots == 1 and not model.paid else None
        self._loops: list[IslandLoop] = []

    async def run_island(self, number: int) -> None:
        loop = IslandLoop(
            number, self._config, self._seed_source, self._model, self._evaluator, self._ledger, self._turnstile
        )
        self._loops.append(loop)
        await loop.run()

    async def drain(self) -> None:
        for loop in self._loops:
            loop.drain()


async def run_local(
    task: Task,
    config: RunConfig,
    folder: RunFolder,
    seeds: Sequence[Seed],
    on_status: Callable[[RunStatus], None],
    stop: StopSwitch,
    baselines: bool = True,
    fence: bool = False,
) -> RunResult:
    """Start or continue the run in `folder`.

    Raises UsageError when this machine cannot judge, RunError when the run cannot go on.
    """
    journal = await asyncio.to_thread(SqliteJournal.open, folder.journal, fence=fence)
    try:
        folder = folder.rewrite(config, local=True)
        ledger = await Ledger.open(journal, config)
        await ledger.start_epoch()
        evaluator = LocalEvaluator(task, config.evaluator)
        try:
            await evaluator.start()
            host = LocalHost(config, task.seed_source, make_model(config.generator), evaluator, ledger)
            search = Search(task, config, folder, ledger, evaluator, host, on_status, stop)
            return await search.run(seeds, baselines)
        finally:
            await evaluator.close()
    finally:
        await journal.close()
