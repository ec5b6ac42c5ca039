"""The pool that a config asks for: engines of its own, engines that runs share, servers that are there, or several."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol, TypeAlias

from adrs_ray.config import RunConfig
from adrs_ray.generator.endpoints import EndpointPool, EndpointStatus, pooled_models
from adrs_ray.generator.routing import PoolView
from cluster.model_pool import ModelPool
from cluster.replica_keeper import ReplicaStatus
from cluster.shared_pool import SharedPool

Engines: TypeAlias = ModelPool | SharedPool


class AnyPool(Protocol):
    """What the driver needs of a pool, whatever its servers are."""

    async def start(self, on_progress: Callable[[str], None]) -> None:
        """Returns when every model has a server. Raises UsageError, RunError when that cannot be."""
        ...

    def view(self) -> PoolView: ...

    async def changed(self, after: PoolView) -> PoolView: ...

    def stats(self) -> Sequence[ReplicaStatus | EndpointStatus]: ...

    async def sleep(self) -> object: ...

    async def wake(self) -> object: ...

    def gpus(self) -> list[tuple[str, tuple[str, ...]]]: ...

    async def close(self) -> None: ...


class RunPool:
    """Engines and endpoints of one run as one pool; either may be missing."""

    def __init__(self, engines: Engines | None, endpoints: EndpointPool | None) -> None:
        self._engines = engines
        self._endpoints = endpoints

    async def start(self, on_progress: Callable[[str], None]) -> None:
        """First what is there already: a wrong address is said before engines take minutes."""
        if self._endpoints is not None:
            await self._endpoints.start()
        if self._engines is not None:
            await self._engines.start(on_progress)

    def view(self) -> PoolView:
        engines = PoolView() if self._engines is None else self._engines.view()
        if self._endpoints is None:
            return engines
        return replace(engines, servers={**self._endpoints.view().servers, **engines.servers})

    async def changed(self, after: PoolView) -> PoolView:
        """The view once it differs from `after`. Raises what ended either part."""
        while self.view() == after:
            parts = [part for part in (self._engines, self._endpoints) if part is not None]
            waits = [asyncio.ensure_future(part.changed(part.view())) for part in parts]
            try:
                done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                for wait in done:
                    wait.result()
            finally:
                for wait in waits:
                    wait.cancel()
                await asyncio.gather(*waits, return_exceptions=True)
        return self.view()

    def stats(self) -> list[ReplicaStatus | EndpointStatus]:
        engines: list[ReplicaStatus] = [] if self._engines is None else self._engines.stats()
        endpoints: list[EndpointStatus] = [] if self._endpoints is None else self._endpoints.stats()
        return [*engines, *endpoints]

    async def sleep(self) -> object:
        """Let the engines leave their GPUs; endpoints have none of ours."""
        return None if self._engines is None else await self._engines.sleep()

    async def wake(self) -> object:
        return None if self._engines is None else await self._engines.wake()

    def gpus(self) -> list[tuple[str, tuple[str, ...]]]:
        return [] if self._engines is None else self._engines.gpus()

    async def close(self) -> None:
        for part in (self._engines, self._endpoints):
            if part is not None:
                await part.close()


def open_pool(config: RunConfig, run: str, may_sleep: bool | None = None) -> RunPool | None:
    """The pool of a run, not started; None when every model has an address of its own, or none is asked.

    `may_sleep`: the task has a stage that needs the engines' GPUs. Raises UsageError for engine settings that cannot
    be.
    """
    if config.generator.kind != "openai":
        return None
    engines: Engines | None = None
    if config.pool.models:
        engines = (ModelPool if config.pool.name is None else SharedPool)(config, run, may_sleep)
    endpoints = EndpointPool(config) if pooled_models(config) else None
    return None if engines is None and endpoints is None else RunPool(engines, endpoints)
