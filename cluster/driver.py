"""A run on Ray: the driver owns every actor, so all of them end with it, and starts again from the journal."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence

import ray

from adrs_ray.config import RunConfig
from adrs_ray.ledger import RunStatus
from adrs_ray.search import RunResult, Search, Seed, StopSwitch
from adrs_ray.storage.runfolder import RunFolder
from adrs_ray.storage.sqlite import SqliteJournal
from adrs_ray.task import Task
from cluster.evaluator import RayEvaluator, start_slots
from cluster.island import RayHost
from cluster.ledger import RayLedger, start_ledger
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
    epoch = await _take_epoch(folder, fence)
    slots = config.evaluator.slots or len(os.sched_getaffinity(0))
    connect(config.cluster.address, slots)
    on_connected()
    try:
        if config.cluster.address is not None and config.evaluator.slots is None:
            slots = max(1, int(cluster_cpus() // task.spec.cpus))
        ledger_actor = start_ledger(folder.journal, epoch, config)
        actors = start_slots(task, folder.task, config, slots)
        ledger = RayLedger(ledger_actor, epoch)
        evaluator = RayEvaluator(actors)
        await ledger.start_epoch()
        await evaluator.start()
        host = RayHost(config, task.seed_source, ledger_actor, epoch, actors)
        result = await Search(task, config, folder, ledger, evaluator, host, on_status, stop).run(seeds, baselines)
        await asyncio.gather(*(actor.close.remote() for actor in actors), return_exceptions=True)
        await ledger.close()
        return result
    finally:
        ray.shutdown()


def cluster_cpus() -> float:
    """CPUs of the cluster that was joined."""
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return resources.get("CPU", 1.0)


async def _take_epoch(folder: RunFolder, fence: bool) -> int:
    """Become the run's writer; the ledger actor writes on under this epoch."""
    journal = await asyncio.to_thread(SqliteJournal.open, folder.journal, fence=fence)
    await journal.close()
    return journal.epoch
