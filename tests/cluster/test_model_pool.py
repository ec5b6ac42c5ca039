"""The model pool on Ray with fake engines and fake GPUs: starts, losses, sleep, sharing, and that nothing is left."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import ray

from adrs_ray.config import RunConfig, parse_config
from adrs_ray.errors import RunError, UsageError
from adrs_ray.generator.connection import Connection
from cluster import shared_pool
from cluster.engine_guard import ENGINE_VARIABLE, GUARD_VARIABLE
from cluster.model_pool import ModelPool
from cluster.replica_keeper import ReplicaState
from cluster.shared_pool import SharedPool
from tests.fake_engine import Manner, write_interpreter
from tests.processes import kill, table

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("gpus_here")]

GPUS = 4
RUN = f"run-{os.getpid()}"
"""In the name of every pool here: other engines on this machine are not ours to count."""


@pytest.fixture(scope="module")
def gpus_here() -> Iterator[None]:
    from cluster.runtime import connect

    connect(None, 16, GPUS)
    yield
    ray.shutdown()


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., RunConfig]:
    """A config with fake engines; `manner` by model."""

    def make(models: dict[str, dict[str, Any]] | None = None, manner: Manner | None = None, **pool: Any) -> RunConfig:
        engines = {
            name: {"cpus": 0.5, "start_timeout_s": 60, "env": (manner or Manner()).env, **engine}
            for name, engine in (models or {"small": {}}).items()
        }
        return parse_config(
            {
                "generator": {"kind": "openai"},
                "models": {name: {"model": f"served-{name}", "timeout_s": 30} for name in engines},
                "pool": {"models": engines, "python": write_interpreter(tmp_path), **pool},
            },
            "test",
        )

    return make


def run(main: Awaitable[Any]) -> Any:
    return asyncio.run(asyncio.wait_for(main, 120))


@asynccontextmanager
async def pool_of(config: RunConfig, name: str = RUN, **options: Any):
    pool = ModelPool(config, name, **options)
    lines: list[str] = []
    try:
        await pool.start(lines.append)
        yield pool, lines
    finally:
        await pool.close()
        assert engines() == {}
        assert actors() == []
        assert groups() == []


def engines() -> dict[int, str]:
    """Every process of an engine or its guard: pid -> marker."""
    found = {}
    for pid in table():
        try:
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        for variable in variables:
            name, _, value = variable.decode(errors="replace").partition("=")
            if name in (ENGINE_VARIABLE, GUARD_VARIABLE) and value.startswith(RUN):
                found[pid] = value
    return found


async def none_left(wanted: Callable[[], Any], seconds: float = 5.0) -> Any:
    deadline = time.monotonic() + seconds
    while (left := wanted()) and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    return left


def actors() -> list[str]:
    states: dict[str, Any] = ray._private.state.actors()  # type: ignore[attr-defined]
    return [each["ActorClassName"] for each in states.values() if each["State"] not in ("DEAD",)]


def groups() -> list[str]:
    table: dict[str, Any] = ray.util.placement_group_table()
    return [each["state"] for each in table.values() if each["state"] != "REMOVED"]


def servers(pool: ModelPool | SharedPool, model: str = "small") -> list[str]:
    """Those that take requests now."""
    return [server.id for server in pool.view().servers.get(model, ()) if server.accepts]


async def until(pool: ModelPool | SharedPool, wanted: Callable[[], bool]) -> None:
    view = pool.view()
    while not wanted():
        view = await asyncio.wait_for(pool.changed(view), 60)


async def chat(pool: ModelPool | SharedPool, model: str = "small", key: str | None = None) -> tuple[int, Any]:
    view = pool.view()
    connection = Connection(view.servers[model][0].base_url, key or view.key, direct=True)
    body = {"model": f"served-{model}", "messages": [{"role": "user", "content": "hello"}], "seed": 1}
    try:
        answer = await connection.post("/chat/completions", json.dumps(body).encode())
        return answer.status, json.loads(answer.content)
    finally:
        await connection.close()


def test_every_replica_comes_up_on_gpus_of_its_own_and_answers_its_key_only(make):
    async def main() -> None:
        config = make({"small": {"replicas": 2}, "strong": {"tensor_parallel": 2}}, Manner(latency_s=0.01))
        async with pool_of(config) as (pool, lines):
            await until(pool, lambda: len(servers(pool)) == 2 and len(servers(pool, "strong")) == 1)
            held = [device for _, devices in pool.gpus() for device in devices]
            assert sorted(held) == ["0", "1", "2", "3"]
            assert len(set(servers(pool))) == 2
            assert (await chat(pool, "strong"))[0] == 200
            assert (await chat(pool, key="wrong"))[0] == 401
            assert lines[-1] == "2 of 2 small up, 1 of 1 strong"
            statuses = pool.stats()
            assert [(s.model, s.number, s.state) for s in statuses] == [
                ("small", 0, ReplicaState.UP),
                ("small", 1, ReplicaState.UP),
                ("strong", 0, ReplicaState.UP),
            ]
            assert all(s.start_s and s.losses == 0 for s in statuses)
            key = pool.view().key
            assert key
            assert not [command for _, command in table().values() if key in command]
            assert key not in repr(pool.view())

    run(main())


def test_loads_and_cache_hits_are_those_that_engines_tell(make):
    async def main() -> None:
        async with pool_of(make(manner=Manner(latency_s=3.0))) as (pool, _):
            asking = [asyncio.create_task(chat(pool)) for _ in range(3)]
            await until(pool, lambda: pool.view().servers["small"][0].load == 3.0)
            await asyncio.gather(*asking)
            await until(pool, lambda: pool.view().servers["small"][0].load == 0.0)
            metrics = pool.stats()[0].metrics
            assert metrics.cache_hits
            assert metrics.cache_queries
            assert metrics.cache_hits < metrics.cache_queries

    run(main())


@pytest.mark.parametrize("victim", ["engine", "guard", "actor"])
def test_whoever_is_killed_the_replica_is_replaced_and_nothing_of_the_old_one_is_left(make, victim):
    async def main() -> None:
        async with pool_of(make({"small": {"replicas": 2}})) as (pool, lines):
            await until(pool, lambda: len(servers(pool)) == 2)
            before, family = servers(pool), engines()
            mine = sorted(pid for pid, marker in family.items() if marker == f"{RUN}/small/0")
            parent = table()[mine[0]][0]
            kill([{"guard": mine[0], "engine": mine[2], "actor": parent}[victim]])
            await until(pool, lambda: before[0] not in servers(pool))
            assert servers(pool) == before[1:]
            assert await none_left(lambda: set(mine) & set(engines())) == set()
            await until(pool, lambda: len(servers(pool)) == 2)
            assert servers(pool)[1] == before[1]
            assert servers(pool)[0] not in before
            assert any(line.startswith(f"lost {RUN}/small/0: ") for line in lines)
            assert pool.stats()[0].losses == 1
            assert (await chat(pool))[0] == 200

    run(main())


def test_an_engine_that_runs_and_is_not_healthy_is_replaced(make, tmp_path):
    async def main() -> None:
        sick = tmp_path / "sick"
        manner = Manner(sick_when=str(sick))
        async with pool_of(make(manner=manner)) as (pool, _):
            before = servers(pool)
            sick.touch()
            await until(pool, lambda: not servers(pool))
            sick.unlink()
            await until(pool, lambda: bool(servers(pool)))
            assert servers(pool) != before
            assert "health checks" in pool.stats()[0].error

    run(main())


def test_a_port_that_is_taken_is_changed_for_another(make, tmp_path):
    async def main() -> None:
        manner = Manner(bind_lost=str(tmp_path / "once"))
        async with pool_of(make(manner=manner)) as (pool, _):
            assert (tmp_path / "once").exists()
            assert pool.stats()[0].losses == 0

    run(main())


def test_a_model_none_of_whose_engines_starts_ends_the_run_in_one_line(make):
    async def main() -> None:
        async with pool_of(make({"small": {"replicas": 2}}, Manner(crash=True))):
            pass

    with pytest.raises(RunError) as caught:
        run(main())
    line = str(caught.value)
    assert line.startswith(
        f"pool.models.small: none of 2 engines starts: {RUN}/small/0: the engine ended, exit status 3"
    )
    assert "ValueError: this model cannot be" in line
    assert f"adrs-engine-{RUN}-small-0.log" in line
    assert "\n" not in line


def test_one_failed_start_among_several_is_tried_again(make, tmp_path):
    async def main() -> None:
        config = make({"small": {"replicas": 2}}, Manner(crash_once=str(tmp_path / "once")))
        async with pool_of(config) as (pool, lines):
            await until(pool, lambda: len(servers(pool)) == 2)
            assert sum(status.losses for status in pool.stats()) == 1
            assert any("ValueError: this model cannot be" in line for line in lines)

    run(main())


def test_what_the_cluster_never_hosts_is_refused_in_one_line(make):
    async def main() -> None:
        async with pool_of(make({"small": {"replicas": GPUS + 1}})):
            pass

    with pytest.raises(UsageError, match="5 x small") as caught:
        run(main())
    assert "\n" not in str(caught.value)


def test_engines_that_hold_every_gpu_sleep_and_wake(make):
    async def main() -> None:
        config = make({"small": {"replicas": GPUS}}, Manner(latency_s=1.0))
        async with pool_of(config) as (pool, _):
            await until(pool, lambda: len(servers(pool)) == GPUS)
            before = servers(pool)
            asking = asyncio.create_task(chat(pool))
            await asyncio.sleep(0.3)
            sleeping = asyncio.create_task(pool.sleep())
            await until(pool, lambda: not servers(pool))
            # Those that end what they have stay in the view: nobody gives up a request to them.
            assert [server.id for server in pool.view().servers["small"]] == before
            await sleeping
            assert asking.done()
            assert (await asking)[0] == 200
            assert servers(pool) == []
            assert {s.state for s in pool.stats()} == {ReplicaState.ASLEEP}
            assert all(s.sleep_s is not None for s in pool.stats())
            await pool.sleep()
            assert {s.state for s in pool.stats()} == {ReplicaState.ASLEEP}
            await pool.wake()
            assert servers(pool) == before
            assert all(s.wake_s is not None for s in pool.stats())
            assert (await chat(pool))[0] == 200

    run(main())


def test_an_engine_that_does_not_sleep_is_ended_and_comes_back_after_the_wake(make):
    async def main() -> None:
        async with pool_of(make(manner=Manner(insomnia=True)), may_sleep=True) as (pool, _):
            before = servers(pool)
            await pool.sleep()
            assert await none_left(engines) == {}
            assert await none_left(lambda: pool.stats()[0].state is not ReplicaState.LOST) is False
            await pool.wake()
            await until(pool, lambda: bool(servers(pool)))
            assert servers(pool) != before
            assert "does not sleep" in pool.stats()[0].error

    run(main())


def test_closing_while_engines_start_leaves_nothing_and_may_be_done_again(make):
    async def main() -> None:
        pool = ModelPool(make(manner=Manner(start_s=60)), RUN)
        starting = asyncio.create_task(pool.start())
        while len(engines()) < 4:
            await asyncio.sleep(0.05)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        assert engines() == {}
        await pool.close()
        assert pool.view().servers == {"small": ()}
        assert await none_left(lambda: actors() + groups()) == []

    run(main())


def test_runs_share_a_pool_by_name_and_it_ends_when_nobody_renews(make):
    async def main() -> None:
        config = make(name=f"{RUN}-ours")
        first, second = SharedPool(config, "a"), SharedPool(config, "b")
        await first.start()
        assert first.view().share == 1.0
        await second.start()
        await until(first, lambda: first.view().share == 0.5)
        assert servers(first) == servers(second)
        assert (await chat(second))[0] == 200
        other = make({"small": {"cpus": 0.75}}, name=f"{RUN}-ours")
        with pytest.raises(UsageError, match=r"pool\.models\.small\.cpus 0\.5, this config says 0\.75"):
            await SharedPool(other, "c").start()
        await first.sleep()
        await until(second, lambda: not servers(second))
        waking = asyncio.create_task(second.sleep())
        await asyncio.sleep(0.5)
        assert not waking.done()  # it has its turn when the first has woken the pool
        await first.close()
        await asyncio.wait_for(waking, 20)
        await second.wake()
        await until(second, lambda: bool(servers(second)) and second.view().share == 1.0)
        assert second._following is not None
        second._following.cancel()  # as a run that is lost: it says nothing more
        begun = time.monotonic()
        assert await none_left(lambda: [*engines(), *actors(), *groups()], 60) == []
        assert time.monotonic() - begun >= shared_pool.LEASE_S - shared_pool.RENEW_S - 1

    run(main())


def test_a_shared_pool_whose_actor_is_lost_is_started_again(make):
    async def main() -> None:
        pool = SharedPool(make(name=f"{RUN}-again"), "a")
        await pool.start()
        before = servers(pool)
        ray.kill(ray.get_actor(f"{RUN}-again", namespace=shared_pool.NAMESPACE))
        await until(pool, lambda: bool(servers(pool)) and servers(pool) != before)
        await pool.close()
        ray.kill(ray.get_actor(f"{RUN}-again", namespace=shared_pool.NAMESPACE))
        assert await none_left(lambda: [*engines(), *actors(), *groups()], 20) == []

    run(main())


def test_a_shared_pool_that_cannot_start_says_why_to_its_runs(make):
    async def main() -> None:
        await SharedPool(make(manner=Manner(crash=True), name=f"{RUN}-broken"), "a").start()

    with pytest.raises(RunError, match="this model cannot be"):
        run(main())
    assert asyncio.run(none_left(lambda: [*engines(), *actors(), *groups()], 20)) == []
