"""The limits that processes share: the actor's promises, first without Ray, then on it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from ray.exceptions import ActorUnschedulableError, OutOfMemoryError, RayActorError, RuntimeEnvSetupError

from adrs_ray.config import ModelConfig
from adrs_ray.errors import RunError
from cluster.limiter import LimiterActor, RayLimiter, start_limiter


def model(**fields: Any) -> ModelConfig:
    return ModelConfig(base_url="http://127.0.0.1:1/v1", model="m", **fields)


class Method:
    """One method of a stand-in for an actor's handle; counts its calls."""

    def __init__(self, method: Any) -> None:
        self._method = method
        self.calls: list[tuple[Any, ...]] = []

    def remote(self, *args: Any) -> asyncio.Task[Any]:
        self.calls.append(args)
        return asyncio.create_task(self._method(*args))


class Handle:
    """The actor in this process."""

    def __init__(self, models: dict[str, ModelConfig]) -> None:
        actor = LimiterActor(models)
        self.lease, self.give_back, self.hold = Method(actor.lease), Method(actor.give_back), Method(actor.hold)


def test_models_without_limits_never_reach_the_actor():
    async def main() -> None:
        models = {"small": model(max_in_flight=2), "strong": model(requests_per_min=6e6)}
        handle = Handle({"strong": models["strong"]})
        limiter = RayLimiter(handle, models)
        for _ in range(5):
            await limiter.lease("small", 100)
            await limiter.done("small", 100, 10)
        await limiter.hold("small", 0.001)
        assert handle.lease.calls == handle.give_back.calls == handle.hold.calls == []
        await limiter.lease("strong", 100)
        await limiter.done("strong", 100, 10)
        assert [call[0] for call in handle.lease.calls + handle.give_back.calls] == ["strong", "strong"]

    asyncio.run(asyncio.wait_for(main(), 30))
    assert start_limiter({"small": model()}) is None


def test_who_waits_in_one_process_is_asked_for_in_few_calls_and_served_in_order():
    async def main() -> tuple[list[int], int]:
        models = {"m": model(requests_per_min=6000)}
        handle = Handle(models)
        limiter, order = RayLimiter(handle, models), []

        async def one(number: int) -> None:
            await limiter.lease("m", 1)
            order.append(number)
            await limiter.done("m", 1, 1)

        await asyncio.gather(*(one(number) for number in range(60)))
        return order, len(handle.lease.calls)

    order, calls = asyncio.run(asyncio.wait_for(main(), 30))
    assert order == list(range(60))
    assert calls <= 3


def test_two_processes_together_stay_below_the_limit():
    async def main() -> tuple[list[str], float]:
        models = {"m": model(requests_per_min=600)}
        handle = Handle(models)
        started: list[str] = []

        async def one(limiter: RayLimiter, name: str) -> None:
            await limiter.lease("m", 1)
            started.append(name)
            await limiter.done("m", 1, 1)

        begin = time.monotonic()
        pair = {name: RayLimiter(handle, models) for name in "ab"}
        await asyncio.gather(*(one(limiter, name) for _ in range(10) for name, limiter in pair.items()))
        return started, time.monotonic() - begin

    started, seconds = asyncio.run(asyncio.wait_for(main(), 60))
    assert sorted(started) == ["a"] * 10 + ["b"] * 10
    assert seconds >= 1.0 - 0.01  # 20 requests at 10 a second, of which 10 at once


def test_a_hold_binds_every_process():
    async def main() -> float:
        models = {"m": model(requests_per_min=6e6)}
        handle = Handle(models)
        told, other = RayLimiter(handle, models), RayLimiter(handle, models)
        begin = time.monotonic()
        await told.hold("m", 0.5)
        await asyncio.sleep(0)
        await other.lease("m", 1)
        return time.monotonic() - begin

    assert asyncio.run(asyncio.wait_for(main(), 30)) >= 0.49


def test_who_gives_up_leaves_its_allowance_and_its_place_to_others():
    async def main() -> list[int]:
        models = {"m": model(requests_per_min=1200, tokens_per_min=60000, max_in_flight=30)}
        limiter, order = RayLimiter(Handle(models), models), []

        async def one(number: int) -> None:
            await limiter.lease("m", 10)
            order.append(number)
            await limiter.done("m", 10, 10)

        tasks = [asyncio.create_task(one(number)) for number in range(40)]
        await asyncio.sleep(0.05)
        for task in tasks[25:30]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return order

    assert asyncio.run(asyncio.wait_for(main(), 60)) == [n for n in range(40) if not 25 <= n < 30]


def test_limits_without_a_limiter_are_an_error_and_nobody_hangs():
    async def main() -> None:
        limiter = RayLimiter(None, {"m": model(requests_per_min=60)})
        outcomes = await asyncio.gather(*(limiter.lease("m", 1) for _ in range(3)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [RunError] * 3

    asyncio.run(asyncio.wait_for(main(), 30))


@pytest.mark.parametrize(
    "loss",
    [
        RayActorError(),
        OutOfMemoryError("95%"),
        RuntimeEnvSetupError("no disk"),
        ActorUnschedulableError("node is dead"),
    ],
)
def test_a_limiter_that_is_lost_after_a_long_wait_in_line_is_waited_for_all_the_same(monkeypatch, loss):
    monkeypatch.setattr("cluster.limiter.RETRY_FOR_S", 0.05)
    models = {"m": model(requests_per_min=60)}
    handle = Handle(models)

    async def lost(*_: Any) -> int:
        await asyncio.sleep(0.1)
        handle.lease = Method(LimiterActor(models).lease)
        raise loss

    handle.lease = Method(lost)
    asyncio.run(asyncio.wait_for(RayLimiter(handle, models).lease("m", 1), 30))


@pytest.mark.ray
@pytest.mark.usefixtures("ray_here")
def test_on_ray_the_limit_holds_and_a_lost_limiter_comes_back():
    import ray

    models = {"m": model(requests_per_min=600), "free": model()}
    actor = start_limiter(models)

    async def main() -> float:
        pair = [RayLimiter(actor, models) for _ in range(2)]

        async def one(limiter: RayLimiter, number: int) -> None:
            await limiter.lease("m", 1)
            if number == 3:
                ray.kill(actor, no_restart=False)
            await limiter.done("m", 1, 0)

        await pair[0].lease("free", 10**6)
        begin = time.monotonic()
        await asyncio.gather(*(one(limiter, number) for number in range(12) for limiter in pair))
        taken = time.monotonic() - begin
        held = time.monotonic()
        await pair[0].hold("m", 0.7)
        await pair[1].lease("m", 1)
        assert time.monotonic() - held >= 0.7
        return taken

    assert asyncio.run(asyncio.wait_for(main(), 120)) >= 1.0 - 0.01  # two blocks of 10 at most, one before the loss
    ray.kill(actor)
