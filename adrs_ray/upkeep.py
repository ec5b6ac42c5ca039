"""What goes on beside a search: islands are told what of a pool answers, meters are kept."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar

from adrs_ray.generator.routing import PoolView
from adrs_ray.search import StopSwitch

_Result = TypeVar("_Result")

STOP_POLL_S = 0.25


class Pool(Protocol):
    """What is followed of a model pool."""

    def view(self) -> PoolView: ...

    async def changed(self, after: PoolView) -> PoolView:
        """The view once it differs from `after`."""
        ...


async def beside(work: Coroutine[Any, Any, _Result], *upkeep: Coroutine[Any, Any, None]) -> _Result:
    """The result of `work`; upkeep is cancelled with its end, and what upkeep raises ends the work."""
    main = asyncio.create_task(work)
    others = [asyncio.create_task(each) for each in upkeep]
    try:
        await asyncio.wait([main, *others], return_when=asyncio.FIRST_COMPLETED)
        while not main.done():
            for other in others:
                if other.done():
                    other.result()
            await asyncio.wait([main, *(o for o in others if not o.done())], return_when=asyncio.FIRST_COMPLETED)
        return main.result()
    finally:
        for task in (main, *others):
            task.cancel()
        await asyncio.gather(main, *others, return_exceptions=True)


async def unless_stopped(work: Coroutine[Any, Any, _Result], stop: StopSwitch) -> _Result:
    """The result of `work`, such as the start of servers, which takes minutes. Raises CancelledError when the run is
    stopped before: there is nothing under way that could be finished."""
    task = asyncio.create_task(work)
    try:
        while not task.done():
            if stop.reason is not None:
                raise asyncio.CancelledError
            await asyncio.wait([task], timeout=STOP_POLL_S)
        return task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def follow(pool: Pool, publish: Callable[[PoolView], None]) -> None:
    """Publish what of the pool answers, now and at every change."""
    view = pool.view()
    while True:
        publish(view)
        view = await pool.changed(view)


async def every(seconds: float, act: Callable[[], Awaitable[None]]) -> None:
    """Do something again and again."""
    while True:
        await act()
        await asyncio.sleep(seconds)
