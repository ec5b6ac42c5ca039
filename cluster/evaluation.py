"""The evaluation of one run: its slots, and the driver's turns where engines hold every GPU."""

from __future__ import annotations

from dataclasses import dataclass

import ray

from adrs_ray.config import RunConfig
from adrs_ray.task import Task
from cluster.evaluator import RayEvaluator, SlotDirectory, end_slots, slot_source
from cluster.fit import Fit
from cluster.gpu_turns import GpuTurns, SleepingPool, TurnStats
from cluster.shared_slots import SharedSlots
from cluster.slot import SlotStatus


@dataclass
class Evaluation:
    """Owned by the driver."""

    directory: SlotDirectory
    """As islands get it."""
    evaluator: RayEvaluator
    """The driver's own."""
    turns: GpuTurns | None = None
    shared: SharedSlots | None = None

    async def slot_stats(self) -> list[SlotStatus]:
        own = await self.evaluator.slot_stats()
        return own if self.shared is None else [*own, *await self.shared.slot_stats()]

    def turn_stats(self) -> TurnStats | None:
        """What sharing GPUs with engines has cost; None where nothing is shared."""
        return None if self.turns is None else self.turns.stats()

    async def close(self) -> None:
        """End every slot."""
        await self.evaluator.close()
        if self.turns is not None:
            await self.turns.close()
        if self.shared is not None:
            await self.shared.close()
        await end_slots(self.directory.actors)


async def start_evaluation(
    task: Task, task_reference: str, config: RunConfig, found: Fit, pool: SleepingPool | None
) -> Evaluation:
    """So many slots as `found` counts, and where; where engines hold every GPU, the GPU stage runs in turns with them.

    Raises as `cluster.evaluator.slot_source`.
    """
    source = slot_source(task, task_reference, config)
    if not (found.in_turns and pool is not None):
        directory = source.start(found.cpu_slots_on, found.gpu_slots_on)
        return Evaluation(directory, RayEvaluator(directory))
    shared = SharedSlots(source)
    turns = GpuTurns(pool, shared, config.pool.batch, config.pool.batch_wait_s)
    host: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    directory = source.start(found.cpu_slots_on, turns=await turns.start(host))
    return Evaluation(directory, RayEvaluator(directory), turns, shared)
