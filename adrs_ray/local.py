"""A run in this process: islands on one event loop, fork servers of this machine. `adrs run --local`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence

from adrs_ray.config import RunConfig
from adrs_ray.errors import UsageError
from adrs_ray.evaluator import Evaluator
from adrs_ray.evaluator.staged import local_evaluator
from adrs_ray.generator import Models
from adrs_ray.generator.endpoints import EndpointPool, pooled_models
from adrs_ray.generator.limits import Limiter, LocalLimiter
from adrs_ray.generator.mailbox import MailboxModel
from adrs_ray.generator.mutate import MutationModel
from adrs_ray.generator.routing import PoolView, Router
from adrs_ray.ledger import Ledger, RunStatus
from adrs_ray.prompt.brief import brief_of
from adrs_ray.runner import IslandLoop, IslandParts
from adrs_ray.search import RunResult, Search, Seed, StopSwitch
from adrs_ray.selector.arms import MAILBOX
from adrs_ray.storage.journal import Journal
from adrs_ray.storage.mirror import mirror_best, open_mirrored
from adrs_ray.storage.runfolder import RunFolder
from adrs_ray.storage.sqlite import SqliteJournal
from adrs_ray.task import Task
from adrs_ray.upkeep import beside, follow


def make_models(
    config: RunConfig,
    limiter: Limiter | None = None,
    routers: Mapping[str, Router] | None = None,
    answered: Collection[str] = (),
) -> Models:
    """The generators that a config names; the model-free one is always there.

    `limiter` shares endpoints' limits between processes, by default this one has them alone. `routers`: of
    `routers_of`, by whoever tells them what of the pool answers. `answered`: models that have answered in an earlier
    life of the run. Raises UsageError for a key that is not in the environment.
    """
    generator = config.generator
    mutator = MutationModel(redraws=generator.redraws, max_mutations=generator.max_mutations)
    if generator.kind == "mutate":
        return {"mutate": mutator}
    if generator.kind == "mailbox":
        return {"mutate": mutator, MAILBOX: MailboxModel()}
    from adrs_ray.generator.openai_model import OpenAIModel

    shared = limiter or LocalLimiter(config.models)
    routed = routers_of(config) if routers is None else routers
    clients = {
        name: OpenAIModel(name, model, shared, router=routed.get(name), answered_before=name in answered)
        for name, model in config.models.items()
    }
    return {"mutate": mutator, **clients}


def routers_of(config: RunConfig) -> dict[str, Router]:
    """A router for every model without an address of its own; nothing answers until it is told a view."""
    foreign = pooled_models(config)
    return {
        name: Router(name, config.pool.max_in_flight, foreign=name in foreign)
        for name, model in config.models.items()
        if model.base_url is None
    }


def answered_models(status: RunStatus) -> frozenset[str]:
    """Models that have answered in this run, as `make_models` wants to know."""
    return frozenset(name for name, model in status.models.items() if model.requests > model.lost)


def check_local(config: RunConfig) -> None:
    """Raise UsageError for a config that asks for what one process does not have."""
    started = "pool.models" if config.pool.models else "pool.preset" if config.pool.preset else None
    if config.generator.kind == "openai" and started is not None:
        raise UsageError(
            f"{started} starts model servers on a cluster's GPUs, which needs Ray: leave out --local, or name servers "
            "that are there (pool.endpoints, or base_url of each model)"
        )


async def close_models(models: Models) -> None:
    """Give back what they hold."""
    await asyncio.gather(*(model.close() for model in models.values()))


class LocalHost:
    """Islands as coroutines of this process."""

    def __init__(self, parts: IslandParts, routers: Collection[Router] = ()) -> None:
        self._parts = parts
        self._routers = routers
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
        for router in self._routers:
            router.stop_waiting()
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

    Raises UsageError when this machine cannot judge, a model's key is missing or no endpoint serves a model, RunError
    when the run cannot go on.
    """
    check_local(config)
    routers = routers_of(config) if config.generator.kind == "openai" else {}
    search = _run(task, config, folder, seeds, on_status, stop, baselines, fence, routers)
    if not routers:
        return await search
    pool = EndpointPool(config)

    def publish(view: PoolView) -> None:
        for router in routers.values():
            router.set_view(view)

    try:
        await pool.start()
        return await beside(search, follow(pool, publish))
    finally:
        search.close()
        await pool.close()


async def _run(
    task: Task,
    config: RunConfig,
    folder: RunFolder,
    seeds: Sequence[Seed],
    on_status: Callable[[RunStatus], None],
    stop: StopSwitch,
    baselines: bool,
    fence: bool,
    routers: Mapping[str, Router],
) -> RunResult:
    brief = brief_of(task, config)
    file = await asyncio.to_thread(SqliteJournal.open, folder.journal, fence=fence)
    journal: Journal = file
    try:
        folder = folder.rewrite(config, local=True)
        journal = await open_mirrored(file, config.mirror, folder.run_yaml)
        ledger = await Ledger.open(journal, config)
        await ledger.start_epoch()
        models = make_models(config, routers=routers, answered=answered_models(await ledger.status()))
        try:
            async with local_evaluator(task, config.evaluator) as evaluator:
                parts = IslandParts(config, brief, models, evaluator, ledger, turnstile(evaluator, config))
                host = LocalHost(parts, routers.values())
                search = Search(task, parts, folder, ledger, host, on_status, stop)
                result = await search.run(seeds, baselines)
                await mirror_best(config.mirror, folder)
                return result
        finally:
            await close_models(models)
    finally:
        await journal.close()
