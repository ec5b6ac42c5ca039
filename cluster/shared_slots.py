"""GPU slots on devices that Ray has given to engines: `cluster.gpu_turns` sees to it that the engines sleep."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from adrs_ray.candidate import Verdict
from adrs_ray.errors import RunError
from adrs_ray.evaluator import EvaluationJob
from cluster.evaluator import RayEvaluator, SlotDirectory, SlotNeed, SlotSource, end_slots
from cluster.gpu_turns import Places
from cluster.slot import SlotStatus

GONE_S = 30.0
"""How long a turn waits when no slot can take a job: the engines sleep meanwhile, and may have moved."""


class SharedSlots:
    """Slots on the devices of engines (`cluster.gpu_turns.TurnSlots`); they follow the engines when those move."""

    def __init__(self, source: SlotSource) -> None:
        self._source = source
        self._places: list[tuple[str, str]] | None = None
        self._evaluator: RayEvaluator | None = None
        self._actors: list[Any] = []
        self._moving = asyncio.Lock()

    def lacks(self, places: Places) -> str | None:
        if self._wanted(places):
            return None
        need = self._need
        return f"stage {', '.join(need.stages)} needs {need.gpus:g} GPUs: no replica of the pool has them"

    async def evaluate(self, job: EvaluationJob, places: Places) -> Verdict:
        evaluator = await self._on(places)
        return await evaluator.evaluate(job)

    async def slot_stats(self) -> list[SlotStatus]:
        """As `RayEvaluator.slot_stats`; none before the first turn."""
        return [] if self._evaluator is None else await self._evaluator.slot_stats()

    async def close(self) -> None:
        """End the slots."""
        if self._evaluator is not None:
            await self._evaluator.close()
        await end_slots(self._actors)
        self._evaluator, self._actors, self._places = None, [], None

    async def _on(self, places: Places) -> RayEvaluator:
        wanted = self._wanted(places)
        if (lack := self.lacks(places)) is not None:
            raise RunError(lack)
        async with self._moving:
            if self._evaluator is None or wanted != self._places:
                await self.close()
                groups = [self._source.start_on(node, devices) for node, devices in wanted]
                self._actors = [actor for group in groups for actor in group.actors]
                group = replace(groups[0], actors=tuple(self._actors))
                self._evaluator = RayEvaluator(SlotDirectory((group,), self._source.last), GONE_S)
                self._places = wanted
            return self._evaluator

    def _wanted(self, places: Places) -> list[tuple[str, str]]:
        return device_groups(places, self._need.gpus)[: self._source.config.evaluator.gpu_slots]

    @property
    def _need(self) -> SlotNeed:
        assert self._source.gpu is not None
        return self._source.gpu


def device_groups(places: Places, gpus: float) -> list[tuple[str, str]]:
    """Node and devices of each slot that finds room on the devices of these replicas; no device is in two slots."""
    size = max(1, int(gpus))
    by_node: dict[str, list[str]] = {}
    for node, devices in places:
        by_node.setdefault(node, []).extend(d for d in devices if d not in by_node.get(node, ()))
    return [
        (node, ",".join(devices[start : start + size]))
        for node, devices in by_node.items()
        for start in range(0, len(devices) - size + 1, size)
    ]
