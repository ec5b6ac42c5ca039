"""Limits of endpoints that all processes of a run share: one actor that says who may start, and its client.

A process asks for everything that waits in it at once and is told how many may start now, at most what one second
allows. It starts them at once and keeps no allowance, so that a Retry-After told to the actor binds every process, and
a lost process or actor loses at most one second's worth. Models without limits never reach the actor.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import ray

from adrs_ray.config import ModelConfig
from adrs_ray.errors import RunError, one_line
from adrs_ray.generator.limits import BLOCK_S, Gate, LocalLimiter
from cluster.calls import LOST, answer

RETRY_FOR_S = 60.0
"""How long a process waits for a lost actor to come back."""
LARGEST_ASK = 256
"""Requests named in one call."""


def limited(models: Mapping[str, ModelConfig]) -> dict[str, ModelConfig]:
    """The models whose endpoints have limits."""
    return {
        name: model
        for name, model in models.items()
        if model.requests_per_min is not None or model.tokens_per_min is not None
    }


class LimiterActor:
    """One gate per limited model. Its state is lost with it: one that Ray started again lets a second pass first."""

    def __init__(self, models: Mapping[str, ModelConfig]) -> None:
        now = time.monotonic()
        self._gates = {name: Gate(model, now) for name, model in models.items()}
        self._turns = {name: asyncio.Lock() for name in models}
        if _started_again():
            for gate in self._gates.values():
                gate.hold(BLOCK_S, now)

    async def lease(self, model: str, wanted: Sequence[int]) -> int:
        """How many of the requests, of so many tokens each and in this order, may start now.

        Waits until it is at least one; callers are served in the order they came.
        """
        gate = self._gates[model]
        async with self._turns[model]:
            while (wait := gate.start(wanted[0], time.monotonic())) > 0:
                await asyncio.sleep(min(wait, BLOCK_S))
            now = time.monotonic()
            granted = 1
            while granted < len(wanted) and gate.start(wanted[granted], now) == 0:
                granted += 1
            return granted

    async def give_back(self, model: str, tokens: int) -> None:
        self._gates[model].give_back(tokens, time.monotonic())

    async def hold(self, model: str, seconds: float) -> None:
        self._gates[model].hold(seconds, time.monotonic())


def _started_again() -> bool:
    return ray.is_initialized() and ray.get_runtime_context().was_current_actor_reconstructed


def start_limiter(models: Mapping[str, ModelConfig]) -> Any | None:
    """The limiter actor of a run; None when no model has limits."""
    if not limited(models):
        return None
    actor = ray.remote(LimiterActor).options(num_cpus=0, max_restarts=-1, max_concurrency=10_000, name=None)
    return actor.remote(limited(models))


class RayLimiter:
    """A `Limiter` over the actor; one per process. `max_in_flight` and holds of models without limits are its own.

    `actor` may be None when no model has limits.
    """

    def __init__(self, actor: Any | None, models: Mapping[str, ModelConfig]) -> None:
        self._actor = actor
        self._waiting: dict[str, deque[tuple[int, asyncio.Future[None]]]] = {name: deque() for name in limited(models)}
        self._asking: dict[str, asyncio.Task[None]] = {}
        unlimited = {"requests_per_min": None, "tokens_per_min": None}
        self._local = LocalLimiter({name: model.model_copy(update=unlimited) for name, model in models.items()})

    async def lease(self, model: str, tokens: int) -> None:
        await self._local.lease(model, tokens)
        if model not in self._waiting:
            return
        allowed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[model].append((tokens, allowed))
        if model not in self._asking or self._asking[model].done():
            self._asking[model] = asyncio.create_task(self._ask(model))
        try:
            await allowed
        except BaseException:
            if allowed.done() and not allowed.cancelled() and allowed.exception() is None:
                self._give_back(model, tokens)
            await self._local.done(model, 0, 0)
            raise

    async def done(self, model: str, reserved_tokens: int, used_tokens: int) -> None:
        await self._local.done(model, 0, 0)
        if model in self._waiting and reserved_tokens != used_tokens:
            self._give_back(model, reserved_tokens - used_tokens)

    async def hold(self, model: str, seconds: float) -> None:
        await self._local.hold(model, seconds)
        if self._actor is not None and model in self._waiting:
            self._actor.hold.remote(model, seconds)

    def _give_back(self, model: str, tokens: int) -> None:
        if self._actor is not None:
            self._actor.give_back.remote(model, tokens)  # nobody waits: lost, it costs a pause

    async def _ask(self, model: str) -> None:
        """Ask for those who wait, until none does."""
        waiting = self._waiting[model]
        while waiting:
            asked = [waiting.popleft() for _ in range(min(len(waiting), LARGEST_ASK))]
            asked = [(tokens, allowed) for tokens, allowed in asked if not allowed.done()]
            if not asked:
                continue
            try:
                granted = await self._granted(model, [tokens for tokens, _ in asked])
            except Exception as error:  # the boundary of this task: it is raised where lease() is awaited
                for _, allowed in asked:
                    if not allowed.done():
                        allowed.set_exception(error)
                continue
            for tokens, allowed in asked[:granted]:
                if allowed.done():  # gave up meanwhile
                    self._give_back(model, tokens)
                else:
                    allowed.set_result(None)
            waiting.extendleft(reversed(asked[granted:]))

    async def _granted(self, model: str, wanted: list[int]) -> int:
        """Asked again when the actor is away: an answer that was lost costs a pause, no more."""
        actor = self._actor
        if actor is None:
            raise RunError(f"model {model!r} has limits, and no limiter was started for this run")
        give_up: float | None = None
        while True:
            try:
                granted: int = await answer(actor.lease.remote(model, wanted))
                return granted
            except LOST as error:
                now = time.monotonic()
                give_up = give_up or now + RETRY_FOR_S  # not from the first call on: a place in line may take long
                if now >= give_up:
                    raise RunError(f"the limiter's actor is lost: {one_line(error)}") from None
                await asyncio.sleep(0.2)
