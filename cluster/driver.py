"""A run on Ray: the driver owns every actor, so all of them end with it, and starts again from the journal."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import ray

from adrs_ray.config import RunConfig
from adrs_ray.errors import UsageError
from adrs_ray.ledger import RunStatus
from adrs_ray.local import close_models
from adrs_ray.prompt.brief import brief_of
from adrs_ray.runner import IslandParts
from adrs_ray.search import RunResult, Search, Seed, StopSwitch
from adrs_ray.storage.runfolder import RunFolder
from adrs_ray.storage.sqlite import SqliteJournal
from adrs_ray.task import Task
from cluster.evaluator import RayEvaluator, start_slots
from cluster.island import RayHost, models_on_ray
from cluster.ledger import RayLedger, start_ledger
from cluster.limiter import start_limiter
from cluster.runtime import connect


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

    Raises UsageError when a node cannot judge, RunError when the run cannot go on.
    """
    # Held to the end, though the ledger actor is the one that writes: it comes up late, and may be lost for a while.
    journal = await asyncio.to_thread(SqliteJournal.open, folder.journal, fence=fence)
    try:
        folder = folder.rewrite(config, local=False)
        count = config.evaluator.slots or len(os.sched_getaffinity(0))
        try:
            connect(config.cluster.address, math.ceil(count * task.spec.cpus))
        except SystemExit:
            # Ray's own answer to SIGTERM while it starts; for us that is a stop.
            ray.shutdown()
            raise asyncio.CancelledError from None
        on_connected()
        try:
            return await _run(task, config, folder, seeds, on_status, stop, baselines, journal.epoch)
        finally:
            ray.shutdown()
    finally:
        await journal.close()


async def _run(
    task: Task,
    config: RunConfig,
    folder: RunFolder,
    seeds: Sequence[Seed],
    on_status: Callable[[RunStatus], None],
    stop: StopSwitch,
    baselines: bool,
    epoch: int,
) -> RunResult:
    """With Ray up: start the actors, search, end them."""
    brief = brief_of(task, config)
    slots = _slots(task, config)
    ledger_actor = start_ledger(folder.journal, epoch, config)
    limiter = start_limiter(config.models)
    actors = start_slots(task, folder.task, config, slots)
    ledger = RayLedger(ledger_actor, epoch)
    evaluator = RayEvaluator(actors)
    models = models_on_ray(config, limiter)
    try:
        await ledger.start_epoch()
        await evaluator.start()
        host = RayHost(config, brief, ledger_actor, epoch, actors, limiter)
        parts = IslandParts(config, brief, models, evaluator, ledger)
        result = await Search(task, parts, folder, ledger, host, on_status, stop).run(seeds, baselines)
        await asyncio.gather(*(actor.close.remote() for actor in actors), return_exceptions=True)
        await ledger.close()
        return result
    finally:
        await close_models(models)


def _slots(task: Task, config: RunConfig) -> int:
    """How many slots to start. Raises UsageError when the cluster that was joined can never hold as many."""
    wanted = config.evaluator.slots
    if config.cluster.address is None:
        return wanted or len(os.sched_getaffinity(0))
    room = sum(int(cpus // task.spec.cpus) for cpus in node_cpus())
    if (wanted or 1) > room:
        raise UsageError(
            f"evaluator.slots: {wanted or 1} of {task.spec.cpus:g} CPUs each do not fit on the cluster at "
            f"{config.cluster.address}, which holds {room}"
        )
    return wanted or room


def node_cpus() -> list[float]:
    """CPUs of each node of the cluster that was joined."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"].get("CPU", 0.0) for node in nodes if node["Alive"]]
