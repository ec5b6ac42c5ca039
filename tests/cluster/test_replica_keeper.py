"""One replica over actors that are fakes: when it starts, what it makes of failures, what it says while it waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from adrs_ray.config import parse_config
from cluster import model_pool, replica_keeper
from cluster.model_pool import ModelPool, waiting_line
from cluster.replica import Announcement, Place
from cluster.replica_keeper import ReplicaKeeper, ReplicaState, ReplicaStatus

SPEC: Any = SimpleNamespace(model="m", number=0, gpus=1, marker="p/m/0", engine=SimpleNamespace(cpus=1))


class Actor:
    """A `ReplicaActor` that has its place once `placed` is set; its first starts fail."""

    def __init__(self) -> None:
        self.placed = asyncio.Event()
        self.failures: list[Exception] = []
        self.starts = 0

    async def _place(self) -> Place:
        await self.placed.wait()
        return Place("node", "host", ("0",), "log")

    async def _start(self) -> Announcement:
        self.starts += 1
        if self.failures:
            raise self.failures.pop(0)
        return Announcement("http://h/v1", 1.0)

    async def _lost(self) -> str:
        await asyncio.Event().wait()
        return ""

    async def _close(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=object.__getattribute__(self, f"_{name}"))


@pytest.fixture
def actor(monkeypatch: pytest.MonkeyPatch) -> Actor:
    actor = Actor()
    options = SimpleNamespace(remote=lambda spec: actor)
    monkeypatch.setattr(replica_keeper, "placement_group", lambda *_, **__: None)
    monkeypatch.setattr(replica_keeper, "PlacementGroupSchedulingStrategy", lambda *_, **__: None)
    remote = SimpleNamespace(remote=lambda _: SimpleNamespace(options=lambda **_: options), kill=lambda actor: None)
    monkeypatch.setattr(replica_keeper, "ray", remote)
    monkeypatch.setattr(replica_keeper, "FIRST_PAUSE_S", 0.001)
    return actor


def within(main: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 20))


async def until(wanted: Callable[[], bool]) -> None:
    while not wanted():
        await asyncio.sleep(0.001)


def test_a_replica_that_gets_its_place_in_a_turn_starts_after_it(actor):
    async def main() -> None:
        awake = asyncio.Event()
        awake.set()
        keeper = ReplicaKeeper(SPEC, awake, lambda: None)
        keeping = asyncio.create_task(keeper.keep())
        await asyncio.sleep(0.01)
        awake.clear()
        actor.placed.set()
        await until(lambda: keeper.place is not None)
        await asyncio.sleep(0.01)
        assert (keeper.state, actor.starts) == (ReplicaState.QUEUED, 0)
        awake.set()
        awake.clear()  # the next turn begins before anybody was told of the wake
        await asyncio.sleep(0.01)
        assert actor.starts == 0
        awake.set()
        await until(lambda: keeper.state is ReplicaState.UP)
        assert actor.starts == 1
        keeping.cancel()

    within(main)


def test_whatever_a_start_raises_is_one_line_and_it_is_tried_again(actor):
    async def main() -> None:
        awake = asyncio.Event()
        awake.set()
        actor.placed.set()
        actor.failures = [OSError(28, "No space left\non device"), ValueError()]
        errors: list[str] = []
        keeper = ReplicaKeeper(SPEC, awake, lambda: errors.append(keeper.error))
        keeping = asyncio.create_task(keeper.keep())
        await until(lambda: keeper.state is ReplicaState.UP)
        assert "p/m/0: OSError: [Errno 28] No space left on device" in errors
        assert "p/m/0: ValueError" in errors
        assert (keeper.losses, actor.starts) == (2, 3)
        assert not keeper.failed_first
        keeping.cancel()

    within(main)


def test_who_waits_too_long_for_a_place_is_named():
    def status(model: str, number: int, gpus: int, queued_s: float) -> ReplicaStatus:
        state = ReplicaState.QUEUED if queued_s else ReplicaState.UP
        return ReplicaStatus("", model, number, state, gpus=gpus, queued_s=queued_s)

    patience = {"strong": 100.0, "small": 10.0}
    strong = [status("strong", 0, 4, 0.0), status("strong", 1, 4, 101.0)]
    small = [status("small", 0, 1, 11.0), status("small", 1, 1, 11.0), status("small", 2, 1, 9.0)]
    assert waiting_line(strong, patience) == "strong 1 of 2 waits for 4 GPUs on one node"
    assert waiting_line(small, patience) == "small 2 of 3 wait for 1 GPU each"
    assert waiting_line([*strong, *small], patience).count(", ") == 1
    assert waiting_line(strong[:1], patience) == ""


def test_a_start_that_waits_for_places_says_so_again_and_again(actor, monkeypatch):
    monkeypatch.setattr(model_pool, "nodes_of_cluster", list)
    monkeypatch.setattr(model_pool, "holds_every_gpu", lambda nodes, config: False)
    monkeypatch.setattr(model_pool, "WAITING_EVERY_S", 0.02)
    monkeypatch.setattr(replica_keeper, "remove_placement_group", lambda group: None)
    config = parse_config(
        {
            "generator": {"kind": "openai"},
            "models": {"small": {"model": "s"}},
            "pool": {"models": {"small": {"tensor_parallel": 2, "start_timeout_s": 0.01}}},
        },
        "test",
    )

    async def main() -> None:
        pool = ModelPool(config, "run")
        lines: list[str] = []
        starting = asyncio.create_task(pool.start(lines.append))
        told = "small 1 of 1 waits for 2 GPUs on one node"
        await until(lambda: lines.count(told) == 2)
        assert pool.sleeps is False
        actor.placed.set()
        await starting
        count = lines.count(told)
        await asyncio.sleep(0.05)
        assert lines.count(told) == count
        await pool.close()

    within(main)
