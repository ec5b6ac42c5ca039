"""An island as a Ray actor: the same `IslandLoop` as in one process, over Ray's ledger and evaluator."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias

import ray

from adrs_ray.config import RunConfig, parse_config
from adrs_ray.errors import RunError, one_line
from adrs_ray.generator import Models
from adrs_ray.generator.routing import PoolView, Router
from adrs_ray.local import answered_models, close_models, make_models, routers_of
from adrs_ray.prompt import TaskBrief
from adrs_ray.runner import IslandLoop, IslandParts
from cluster.calls import LOST, answer
from cluster.evaluator import RayEvaluator
from cluster.ledger import RayLedger
from cluster.limiter import RayLimiter
from cluster.runtime import allow_many_connections

ModelFactory: TypeAlias = Callable[[RunConfig, Any, Mapping[str, Router], Collection[str]], Models]
"""From the config, the limiter actor (None where no model has limits), the routers of models that the pool serves, and
the names of models that have answered in this run before, to the models of one process."""

LOSSES_ALLOWED = 5
"""Times in a row that an island may be lost without a candidate of its ending in between: something kills it again and
again, and the run gives up."""


def models_on_ray(config: RunConfig, limiter: Any, routers: Mapping[str, Router], answered: Collection[str]) -> Models:
    """The generators that a config names, endpoints' limits shared through the limiter actor."""
    return make_models(config, None if limiter is None else RayLimiter(limiter, config.models), routers, answered)


class IslandActor:
    """One island; everything it knows comes from the journal."""

    def __init__(
        self,
        number: int,
        config: dict[str, Any],
        brief: TaskBrief,
        ledger: Any,
        epoch: int,
        slots: Any,
        limiter: Any,
        model_factory: ModelFactory,
        view: PoolView,
    ) -> None:
        allow_many_connections()
        self._number = number
        self._config = parse_config(config, "island actor")
        self._brief = brief
        self._ledger_actor = ledger
        self._epoch = epoch
        self._slots = slots
        self._limiter = limiter
        self._model_factory = model_factory
        self._routers = routers_of(self._config)
        self._view = view
        self._loop: IslandLoop | None = None
        self._draining = False

    async def run(self) -> None:
        """Until the ledger grants no more. Raises RunError when the run cannot go on."""
        await self.set_view(self._view)
        ledger = RayLedger(self._ledger_actor, self._epoch)
        answered = answered_models(await ledger.status())
        models = self._model_factory(self._config, self._limiter, self._routers, answered)
        parts = IslandParts(self._config, self._brief, models, RayEvaluator(self._slots), ledger)
        self._loop = IslandLoop(self._number, parts)
        if self._draining:
            self._loop.drain()
        try:
            await self._loop.run()
        finally:
            await close_models(models)

    async def set_view(self, view: PoolView) -> None:
        """What of the model pool answers from now on."""
        for router in self._routers.values():
            router.set_view(view)

    async def drain(self) -> None:
        self._draining = True
        for router in self._routers.values():
            router.stop_waiting()
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
        slots: Any,
        limiter: Any = None,
        model_factory: ModelFactory = models_on_ray,
        ended: Callable[[int], int] = lambda number: 0,
        routers: Collection[Router] = (),
    ) -> None:
        """`slots`: what `RayEvaluator` takes. `ended`: candidates of an island that have ended, as last known.
        `routers`: the driver's own, which are told what islands are told."""
        self._config = config
        self._brief = brief
        self._ledger = ledger
        self._epoch = epoch
        self._slots = slots
        self._limiter = limiter
        self._model_factory = model_factory
        self._ended = ended
        self._routers = routers
        self._view = PoolView()
        self._actors: dict[int, Any] = {}
        self.losses = 0
        """Of islands, in all."""

    async def run_island(self, number: int) -> None:
        in_a_row, ended = 0, self._ended(number)
        while True:
            actor = self._start(number)
            try:
                await answer(actor.run.remote())
                return
            except LOST as error:
                self.losses += 1
                in_a_row, ended = (in_a_row + 1 if self._ended(number) == ended else 1), self._ended(number)
                if in_a_row > LOSSES_ALLOWED:
                    detail = one_line(error, 200)
                    raise RunError(f"island {number} was lost {in_a_row} times without a result: {detail}") from None
                await asyncio.sleep(0.5)
            finally:
                del self._actors[number]
                ray.kill(actor)

    def _start(self, number: int) -> Any:
        actor_class = ray.remote(IslandActor).options(num_cpus=0, max_restarts=0, name=None, max_concurrency=100)
        self._actors[number] = actor_class.remote(
            number,
            self._config.model_dump(),
            self._brief,
            self._ledger,
            self._epoch,
            self._slots,
            self._limiter,
            self._model_factory,
            self._view,
        )
        return self._actors[number]

    def publish(self, view: PoolView) -> None:
        """Tell every island, those that come later, too, what of the model pool answers; waits for nobody."""
        self._view = view
        for router in self._routers:
            router.set_view(view)
        for actor in self._actors.values():
            actor.set_view.remote(view)

    async def drain(self) -> None:
        for router in self._routers:
            router.stop_waiting()
        for actor in self._actors.values():
            # Nobody waits for the answer: a lost island is told when it has been replaced.
            actor.drain.remote()
