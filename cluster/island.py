"""An island as a Ray actor: the same `IslandLoop` as in one process, over Ray's ledger and evaluator."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import ray
from ray.exceptions import RayActorError

from adrs_ray.config import GeneratorConfig, RunConfig, parse_config
from adrs_ray.errors import RunError
from adrs_ray.generator import Model
from adrs_ray.local import make_model
from adrs_ray.runner import IslandLoop
from cluster.calls import answer
from cluster.evaluator import RayEvaluator
from cluster.ledger import RayLedger

ModelFactory: TypeAlias = Callable[[GeneratorConfig], Model]

LOSSES_ALLOWED = 20
"""Times an island may be lost in one run before the run gives up: something kills it again and again."""


class IslandActor:
    """One island; everything it knows comes from the journal."""

    def __init__(
        self,
        number: int,
        config: dict[str, Any],
        seed_source: str,
        ledger: Any,
        epoch: int,
        slots: list[Any],
        model_factory: ModelFactory,
    ) -> None:
        self._number = number
        self._config = parse_config(config, "island actor")
        self._seed_source = seed_source
        self._ledger_actor = ledger
        self._epoch = epoch
        self._slots = slots
        self._model_factory = model_factory
        self._loop: IslandLoop | None = None

    async def run(self) -> None:
        """Until the ledger grants no more. Raises RunError when the run cannot go on."""
        self._loop = IslandLoop(
            self._number,
            self._config,
            self._seed_source,
            self._model_factory(self._config.generator),
            RayEvaluator(self._slots),
            RayLedger(self._ledger_actor, self._epoch),
        )
        await self._loop.run()

    async def drain(self) -> None:
        if self._loop is not None:
            self._loop.drain()


class RayHost:
    """Islands as actors of this driver; a lost one is replaced and continues from the journal."""

    def __init__(
        self,
        config: RunConfig,
        seed_source: str,
        ledger: Any,
        epoch: int,
        slots: Sequence[Any],
        model_factory: ModelFactory = make_model,
    ) -> None:
        self._config = config
        self._seed_source = seed_source
        self._ledger = ledger
        self._epoch = epoch
        self._slots = list(slots)
        self._model_factory = model_factory
        self._actors: dict[int, Any] = {}
        self.losses = 0

    async def run_island(self, number: int) -> None:
        actor_class = ray.remote(IslandActor).options(num_cpus=0, max_restarts=0, name=None)
        while True:
            actor: Any = actor_class.remote(
                number,
                self._config.model_dump(),
                self._seed_source,
                self._ledger,
                self._epoch,
                self._slots,
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
