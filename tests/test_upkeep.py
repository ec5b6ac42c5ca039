"""What runs beside the search: it ends with it, and can end it."""

from __future__ import annotations

import asyncio

import pytest

from adrs_ray.errors import RunError
from adrs_ray.generator.routing import PoolView, Server
from adrs_ray.search import StopSwitch
from adrs_ray.upkeep import beside, every, follow, unless_stopped


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 10))


def test_upkeep_ends_with_the_work_and_the_works_result_counts():
    ended: list[str] = []

    async def endless() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("upkeep")

    async def short() -> None:
        return

    async def work() -> int:
        await asyncio.sleep(0.05)
        return 7

    assert run(beside(work(), endless(), short())) == 7
    assert ended == ["upkeep"]


def test_upkeep_that_fails_ends_the_work_with_its_error():
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("work")

    async def failing() -> None:
        await asyncio.sleep(0.01)
        raise RunError("every engine failed")

    with pytest.raises(RunError, match="every engine failed"):
        run(beside(work(), failing()))
    assert ended == ["work"]


def test_a_stop_ends_a_long_start():
    stop, ended = StopSwitch(), []

    async def start() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    async def main() -> None:
        asyncio.get_running_loop().call_later(0.05, stop.drain, "stopped by a signal")
        with pytest.raises(asyncio.CancelledError):
            await unless_stopped(start(), stop)

    run(main())
    assert ended == [True]

    async def quick() -> int:
        return 3

    assert run(unless_stopped(quick(), StopSwitch())) == 3


def test_every_change_of_the_pool_is_published_once():
    views = [PoolView({"small": (Server(f"s{n}", "http://a/v1"),)}) for n in range(3)]
    published: list[PoolView] = []

    class Pool:
        def view(self) -> PoolView:
            return views[0]

        async def changed(self, after: PoolView) -> PoolView:
            place = views.index(after)
            if place == len(views) - 1:
                raise RunError("over")
            return views[place + 1]

    with pytest.raises(RunError, match="over"):
        run(follow(Pool(), published.append))
    assert published == views


def test_what_is_done_again_and_again_is_done_until_cancelled():
    done: list[int] = []

    async def act() -> None:
        done.append(1)

    async def main() -> None:
        await beside(asyncio.sleep(0.2), every(0.01, act))

    run(main())
    assert len(done) >= 3
