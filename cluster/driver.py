"""A run on Ray: the driver owns every actor, so all of them end with it, and starts again from the journal."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import ray

from adrs_ray.config import RunConfig
from adrs_ray.errors import RunError, UsageError
from adrs_ray.ledger import RunStatus
from adrs_ray.local import answered_models, close_models, routers_of
from adrs_ray.prompt.brief import brief_of
from adrs_ray.runner import IslandParts
from adrs_ray.search import RunResult, Search, Seed, StopSwitch
from adrs_ray.storage.mirror import mirror_best
from adrs_ray.storage.runfolder import RunFolder
from adrs_ray.storage.sqlite import SqliteJournal
from adrs_ray.task import Task
from adrs_ray.upkeep import beside, every, follow, unless_stopped
from cluster.control import start_control
from cluster.estimate import estimate
from cluster.evaluation import Evaluation, start_evaluation
from cluster.fit import Fit, fit
from cluster.island import RayHost, models_on_ray
from cluster.ledger import RayLedger, start_ledger
from cluster.limiter import start_limiter
from cluster.metering import Metering
from cluster.nodes import nodes_of_cluster, nvidia_gpus
from cluster.pools import AnyPool, open_pool
from cluster.presets import footprints
from cluster.runtime import allow_many_connections, connect

NODES_POLL_S = 2.0
CLOSE_S = 20.0


@dataclass(frozen=True)
class _Run:
    """What is given to a start of a run."""

    task: Task
    config: RunConfig
    folder: RunFolder
    epoch: int
    stop: StopSwitch
    on_status: Callable[[RunStatus], None]
    tell: Callable[[str], None]
    """Says one line to whoever watches."""


async def run_on_ray(
    task: Task,
    config: RunConfig,
    folder: RunFolder,
    seeds: Sequence[Seed],
    on_status: Callable[[RunStatus], None],
    stop: StopSwitch,
    baselines: bool = True,
    fence: bool = False,
    on_connected: Callable[[], None] = lambda: None,
) -> RunResult:
    """Start or continue the run in `folder` on Ray. `on_connected` is called once Ray has set its signal handlers.

    Raises UsageError when the cluster cannot host the run or a node cannot judge, RunError when the run cannot go on.
    """
    allow_many_connections()
    # Held to the end, though the ledger actor is the one that writes: it comes up late, and may be lost for a while.
    journal = await asyncio.to_thread(SqliteJournal.open, folder.journal, fence=fence)
    try:
        folder = folder.rewrite(config, local=False)
        try:
            connect(config.cluster.address, _embedded_cpus(task, config))
        except SystemExit:
            # Ray's own answer to SIGTERM while it starts; for us that is a stop.
            ray.shutdown()
            raise asyncio.CancelledError from None
        on_connected()
        try:
            run = _Run(task, config, folder, journal.epoch, stop, on_status, _tell)
            return await _run(run, seeds, baselines)
        finally:
            ray.shutdown()
    finally:
        await journal.close()


async def _run(run: _Run, seeds: Sequence[Seed], baselines: bool) -> RunResult:
    """With Ray up: start the actors, search, end them."""
    config = run.config
    async with AsyncExitStack() as ending:
        # Kept to the end: an actor ends when nobody holds it.
        control = await start_control(run.folder.path, run.folder.reference.name)
        found = await unless_stopped(_room(run), run.stop)
        ledger_actor = start_ledger(run.folder.journal, run.epoch, config)
        ledger = RayLedger(ledger_actor, run.epoch)
        ending.push_async_callback(_close, ledger, run.tell)
        await ledger.start_epoch()
        limiter = start_limiter(config.models)
        pool = open_pool(config, run.folder.reference.name, found.in_turns)
        if pool is not None:
            ending.push_async_callback(pool.close)
        evaluation = await start_evaluation(run.task, run.folder.task, config, found, pool)
        ending.push_async_callback(evaluation.close)
        await unless_stopped(_all_up(pool, evaluation, run.tell), run.stop)
        routers = routers_of(config)
        answered = answered_models(await ledger.status())
        models = models_on_ray(config, limiter, routers, answered)
        ending.push_async_callback(close_models, models)
        brief = brief_of(run.task, config)
        metering = Metering(
            run.folder.reference.name, config.pool.max_in_flight, pool, evaluation, run.on_status, run.tell
        )
        directory = evaluation.evaluator.directory
        host = RayHost(
            config, brief, ledger_actor, run.epoch, directory, limiter, ended=metering.ended, routers=routers.values()
        )
        parts = IslandParts(config, brief, models, evaluation.evaluator, ledger)
        search = Search(run.task, parts, run.folder, ledger, host, metering.on_status, run.stop)
        upkeep = [every(metering.interval_s, metering.look)]
        if pool is not None:
            upkeep.append(follow(pool, host.publish))
        result = await beside(search.run(seeds, baselines), *upkeep)
        await mirror_best(config.mirror, run.folder)
        if (cost := metering.summary()) is not None:
            run.tell(cost)
        del control
        return result


async def _room(run: _Run) -> Fit:
    """How the run's parts fit on the cluster; nodes that are still coming are waited for.

    Raises UsageError when they do not fit.
    """
    stages = run.task.native.spec.all_stages
    known = footprints(run.config)
    give_up = asyncio.get_running_loop().time() + run.config.cluster.wait_s
    told = ""
    while True:
        try:
            found = fit(nodes_of_cluster(), run.config, stages, known)
            break
        except UsageError as error:
            joined = run.config.cluster.address is not None
            if not joined or asyncio.get_running_loop().time() >= give_up:
                raise
            if str(error) != told:
                told = str(error)
                run.tell(f"waiting for nodes: {told}")
            await asyncio.sleep(NODES_POLL_S)
    if run.config.pool.models:
        expected = estimate(run.config, found)
        run.tell(found.describe() + ("" if expected is None else f"; {expected.describe()}"))
    return found


async def _all_up(pool: AnyPool | None, evaluation: Evaluation, tell: Callable[[str], None]) -> None:
    """Slots and servers come up side by side; what fails first ends both."""
    starts = [asyncio.create_task(evaluation.evaluator.start())]
    if pool is not None:
        starts.append(asyncio.create_task(pool.start(tell)))
    try:
        await asyncio.gather(*starts)
    finally:
        for start in starts:
            start.cancel()
        await asyncio.gather(*starts, return_exceptions=True)


async def _close(ledger: RayLedger, tell: Callable[[str], None]) -> None:
    """Let the journal's actor write what its mirror lacks. One that is lost has said so where it mattered."""
    with contextlib.suppress(RunError, TimeoutError):
        missing = await asyncio.wait_for(ledger.close(), CLOSE_S)
        if missing is not None:
            tell(missing)


def _embedded_cpus(task: Task, config: RunConfig) -> int:
    """CPUs that an embedded Ray counts: one evaluation slot per CPU of this machine unless told otherwise."""
    count = config.evaluator.slots or len(os.sched_getaffinity(0))
    stages = task.native.spec.all_stages
    gpus = len(nvidia_gpus())
    slots = count * max(stage.cpus for stage in stages)
    for stage in stages:
        if stage.gpus:
            slots += stage.cpus * max(1, config.evaluator.gpu_slots or gpus // math.ceil(stage.gpus))
    return math.ceil(slots + sum(engine.cpus * engine.replicas for engine in config.pool.models.values()))


def _tell(line: str) -> None:
    with contextlib.suppress(OSError):
        print(line, file=sys.stdout, flush=True)
