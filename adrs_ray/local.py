"""A run in this process: islands on one event loop, fork servers of this machine. `adrs run --local`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from adrs_ray.config import RunConfig
from adrs_ray.evaluator import Evaluator
from adrs_ray.evaluator.local import LocalEvaluator
from adrs_ray.generator import Models
from adrs_ray.generator.limits import Limiter, LocalLimiter
from adrs_ray.generator.mailbox import MailboxModel
from adrs_ray.generator.mutate import MutationModel
from adrs_ray.ledger import Ledger, RunStatus
from adrs_ray.prompt.brief import brief_of
from adrs_ray.runner import IslandLoop, IslandParts
from adrs_ray.search import RunResult, Search, Seed, StopSwitch
from adrs_ray.selector.arms import MAILBOX
from adrs_ray.storage.runfolder import RunFolder
from adrs_ray.storage.sqlite import SqliteJournal
from adrs_ray.task import Task


def make_models(config: RunConfig, limiter: Limiter | None = None) -> Models:
    """The generators that a config names; the model-free one is always there.

    `limiter` shares endpoints' limits between processes, by default this one has them alone. Raises UsageError for a
    key that is not in the environment.
    """
    generator = config.generator
    mutator = MutationModel(redraws=generator.redraws, max_mutations=generator.max_mutations)
    if generator.kind == "mutate":
        return {"mutate": mutator}
    if generator.kind == "mailbox":
        return {"mutate": mutator, MAILBOX: MailboxModel()}
    from adrs_ray.generator.openai_model import OpenAIModel

    shared = limiter or LocalLimiter(config.models)
    return {"mutate": mutator, **{name: OpenAIModel(name, model, shared) for name, model in config.models.items()}}


async def close_models(models: Models) -> None:
    """Give back what they hold."""
    await asyncio.gather(*(model.close() for model in models.values()))


class LocalHost:
    """Islands as coroutines of this process."""

    def __init__(self, parts: IslandParts) -> None:
        self._parts = parts
        self._loops: list[IslandLoop] = []
        self._draining = False

    async def run_island(self, number: int) -> None:
        loop = IslandLoop(number, self._parts)
        self._loops.append(loop)
        if self._draining:
            loop.drain()
        await loop.run()

    async def drain(self) -> None:
        self._draining = True
        for loop in self._loops:
            loop.drain()


def turnstile(evaluator: Evaluator, config: RunConfig) -> asyncio.Semaphore | None:
    """With one evaluation slot and no model to wait for, candidates go one by one through the whole loop: two runs with
    one seed are then equal."""
    return asyncio.Semaphore(1) if evaluator.slots == 1 and config.generator.kind == "mutate" else None


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

    Raises UsageError when this machine cannot judge or a model's key is missing, RunError when the run cannot go on.
    """
    models = make_models(config)
    try:
        return await _run(task, config, folder, seeds, on_status, stop, baselines, fence, models)
    finally:
        await close_models(models)


async def _run(
    task: Task,
    config: RunConfig,
    folder: RunFolder,
    seeds: Sequence[Seed],
    on_status: Callable[[RunStatus], None],
    stop: StopSwitch,
    baselines: bool,
    fence: bool,
    models: Models,
) -> RunResult:
    brief = brief_of(task, config)
    journal = await asyncio.to_thread(SqliteJournal.open, folder.journal, fence=fence)
    try:
        folder = folder.rewrite(config, local=True)
        ledger = await Ledger.open(journal, config)
        await ledger.start_epoch()
        async with LocalEvaluator(task, config.evaluator) as evaluator:
            parts = IslandParts(config, brief, models, evaluator, ledger, turnstile(evaluator, config))
            search = Search(task, parts, folder, ledger, LocalHost(parts), on_status, stop)
            return await search.run(seeds, baselines)
    finally:
        await journal.close()
