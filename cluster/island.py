"""An island as a Ray actor: the same `IslandLoop` as in one process, over Ray's ledger and evaluator."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import ray
from ray.exceptions import RayActorError

from adrs_ray.config import RunConfig, parse_config
from adrs_ray.errors import RunError
from adrs_ray.generator import Models
from adrs_ray.local import close_models, make_models
from adrs_ray.prompt import TaskBrief
from adrs_ray.runner import IslandLoop, IslandParts
from cluster.calls import answer
from cluster.evaluator import RayEvaluator
from cluster.ledger import RayLedger
from cluster.limiter import RayLimiter

ModelFactory: TypeAlias = Callable[[RunConfig, Any], Models]
"""From the config and the limiter actor (None where no model has limits) to the models of one process."""

LOSSES_ALLOWED = 20
"""Times an island may be lost in one run before the run gives up: something kills it again and again."""


def models_on_ray(config: RunConfig, limiter: Any) -> Models:
    """The generators that a config names, endpoints' limits shared through the limiter actor."""
    return make_models(config, None if limiter is None else RayLimiter(limiter, config.models))


class IslandActor:
    """One island; everything it knows comes from the journal."""

    def __init__(
        self,
        number: int,
        config: dict[str, Any],
        brief: TaskBrief,
        ledger: Any,
        epoch: int,
        slots: list[Any],
        limiter: Any,
        model_factory: ModelFactory,
    ) -> None:
        self._number = number
        self._config = parse_config(config, "island actor")
        self._brief = brief
        self._ledger_actor = ledger
        self._epoch = epoch
        self._slots = slots
        self._limiter = limiter
        self._model_factory = model_factory
        self._loop: IslandLoop | None = None
        self._draining = False

    async def run(self) -> None:
        """Until the ledger grants no more. Raises RunError when the run cannot go on."""
        models = self._model_factory(self._config, self._limiter)
        ledger = RayLedger(self._ledger_actor, self._epoch)
        parts = IslandParts(self._config, self._brief, models, RayEvaluator(self._slots), ledger)
        self._loop = IslandLoop(self._number, parts)
        if self._draining:
            self._loop.drain()
        try:
            await self._loop.run()
        finally:
            await close_models(models)

    async def drain(self) -> None:
        self._draining = True
        if self._loop is not None:
            self._loop.drain()


class RayHost:
    """Islands as actors of this driver; a lost one is replaced and continues from the journal."""

    def __init__(
        self,
        config: RunConfig,
        brief: TaskBrief,
        ledger: Any,
        epoch: int,
        slots: Sequence[Any],
        limiter: Any = None,
        model_factory: ModelFactory = models_on_ray,
    ) -> None:
        self._config = config
        self._brief = brief
        self._ledger = ledger
        self._epoch = epoch
        self._slots = list(slots)
        self._limiter = limiter
        self._model_factory = model_factory
        self._actors: dict[int, Any] = {}
        self.losses = 0

    async def run_island(self, number: int) -> None:
        actor_class = ray.remote(IslandActor).options(num_cpus=0, max_restarts=0, name=None)
        while True:
            actor: Any = actor_class.remote(
                number,
                self._config.model_dump(),
                self._brief,
                self._ledger,
                self._epoch,
                self._slots,
                self._limiter,
                self._model_factory,
            )
            self._actors[number] = actor
            try:
                await answer(actor.run.remote())
                return
            except RayActorError as error:
                self.losses += 1
                if self.losses > LOSSES_ALLOWED:
                    detail = " ".join(str(error).split())[:200]
                    raise RunError(f"islands were lost {self.losses} times, the last was {number}: {detail}") from None
                await asyncio.sleep(0.5)
            finally:
                del self._actors[number]
                ray.kill(actor)

    async def drain(self) -> None:
        for actor in self._actors.values():
            # Nobody waits for the answer: a lost island is told when it has been replaced.
            actor.drain.remote()
