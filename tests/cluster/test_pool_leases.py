"""Who holds a shared pool, whose turn it is, and what runs must agree on to share it. Without Ray."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adrs_ray.config import override, parse_config
from adrs_ray.errors import RunError, UsageError
from adrs_ray.generator.routing import PoolView
from cluster import shared_pool
from cluster.shared_pool import LEASE_S, Leases, PoolHost, Snapshot, disagreement, shared_part

CONFIG = parse_config(
    {
        "generator": {"kind": "openai"},
        "models": {"small": {"model": "s"}},
        "pool": {"name": "ours", "models": {"small": {"replicas": 2}}},
    },
    "test",
)


def test_a_lease_ends_with_silence_and_a_pool_with_its_last_lease():
    leases = Leases(0.0)
    assert not leases.abandoned(LEASE_S - 0.1)
    assert leases.renew("a", 1.0)
    assert not leases.renew("a", 5.0)
    assert leases.renew("b", 5.0)
    assert len(leases) == 2
    assert leases.leave("b", 6.0)
    assert not leases.leave("b", 6.0)
    assert leases.expire(5.0 + LEASE_S - 0.1) == []
    assert not leases.abandoned(1000.0)
    assert "a" in leases
    assert leases.expire(5.0 + LEASE_S) == ["a"]
    assert len(leases) == 0
    assert "a" not in leases
    assert not leases.abandoned(5.0 + 2 * LEASE_S - 0.1)
    assert leases.abandoned(5.0 + 2 * LEASE_S)


def test_after_the_last_leaves_the_pool_is_kept_for_the_next_run():
    leases = Leases(0.0)
    leases.renew("a", 0.0)
    leases.leave("a", 10.0)
    assert not leases.abandoned(10.0 + LEASE_S - 0.1)
    assert leases.abandoned(10.0 + LEASE_S)


@given(st.lists(st.tuples(st.sampled_from(["renew", "leave", "expire"]), st.sampled_from("abc"), st.floats(0, 9))))
def test_who_renewed_within_the_lease_has_it(steps):
    leases, now, last = Leases(0.0), 0.0, {}
    for step, run, wait in steps:
        now += wait
        if step == "renew":
            leases.renew(run, now)
            last[run] = now
        elif step == "leave":
            leases.leave(run, now)
            last.pop(run, None)
        leases.expire(now)
        last = {run: then for run, then in last.items() if now < then + LEASE_S}
        assert len(leases) == len(last)
        assert not (last and leases.abandoned(now))


def test_runs_share_a_pool_of_the_same_engines_whatever_else_they_do():
    one = CONFIG
    same = override(one, {"seed": 9, "models.small.temperature": 0.1, "islands.count": 3})
    assert disagreement("ours", shared_part(one), shared_part(same)) is None
    for key, value in {
        "pool.models.small.replicas": 3,
        "models.small.context_tokens": 9000,
        "pool.python": "/p",
    }.items():
        other = override(one, {key: value})
        line = disagreement("ours", shared_part(one), shared_part(other))
        assert line is not None
        assert key in line
        assert repr(value) in line


class Pool:
    """What `PoolHost` needs of a `ModelPool`."""

    def __init__(self, sleeps: bool | None = True) -> None:
        self.sleeps = sleeps
        self.asleep = False
        self.start: Callable[..., Awaitable[None]]

    async def sleep(self) -> float:
        await asyncio.sleep(0)
        self.asleep = True
        return 0.1

    async def wake(self) -> float:
        await asyncio.sleep(0)
        self.asleep = False
        return 0.1

    def view(self) -> PoolView:
        return PoolView()

    def stats(self) -> list[object]:
        return []

    gpus = stats


async def host_of(pool: Pool, *runs: str) -> PoolHost:
    host = PoolHost(CONFIG.model_dump(), "ours", False)
    host._pool = pool  # type: ignore[assignment]
    host._running = asyncio.create_task(asyncio.sleep(60))  # in place of its life, which ends a Ray actor
    for run in runs:
        await host.join(run, shared_part(CONFIG))
    return host


def within(main: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 20))


@pytest.mark.parametrize("how", ["leaves", "falls silent"])
def test_a_run_that_ends_while_it_waits_for_its_turn_does_not_get_it(how):
    async def main() -> None:
        pool = Pool()
        host = await host_of(pool, "a#1", "b#1")
        await host.sleep("b#1")
        waiting = asyncio.create_task(host.sleep("a#1"))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        if how == "leaves":
            await host.wake("a#1")
            await host.leave("a#1")
        else:
            host._leases._until["a#1"] = 0.0
            await host._expire()
        with pytest.raises(RunError, match="no lease"):
            await waiting
        assert pool.asleep  # it is the turn of the other one
        await host.wake("b#1")
        assert not pool.asleep
        assert await host.sleep("b#1") == 0.1

    within(main)


@pytest.mark.parametrize("how", ["leaves", "falls silent"])
def test_a_run_that_ends_in_its_turn_gives_it_to_the_next(how):
    async def main() -> None:
        pool = Pool()
        host = await host_of(pool, "a#1", "b#1")
        await host.sleep("b#1")
        waiting = asyncio.create_task(host.sleep("a#1"))
        await asyncio.sleep(0.01)
        if how == "leaves":
            # The run's own wake is still under way: it must not take the turn from the next.
            await asyncio.gather(host.wake("b#1"), host.leave("b#1"))
        else:
            host._leases._until["b#1"] = 0.0
            await host._expire()
        await waiting
        assert host._sleeper == "a#1"
        await host.wake("a#1")
        assert not pool.asleep

    within(main)


def test_a_run_that_needs_sleep_is_refused_by_a_pool_without_it():
    async def main() -> None:
        host = await host_of(Pool(sleeps=False), "a#1")
        with pytest.raises(UsageError, match="'ours' was started without sleep mode") as caught:
            await host.join("b#1", shared_part(CONFIG), True)
        assert "\n" not in str(caught.value)
        assert "b#1" not in host._leases
        undecided = Pool(sleeps=None)
        host = await host_of(undecided)
        joining = asyncio.create_task(host.join("b#1", shared_part(CONFIG), True))
        await asyncio.sleep(0.01)
        assert not joining.done()
        undecided.sleeps = True
        await joining
        assert "b#1" in host._leases

    within(main)


def test_what_a_run_without_need_says_of_sleep_is_left_to_the_pool():
    said = [PoolHost(CONFIG.model_dump(), "ours", may_sleep)._pool._may_sleep for may_sleep in (False, None, True)]
    assert said == [None, None, True]


def test_old_lines_are_no_news_to_a_run_that_joins(monkeypatch):
    monkeypatch.setattr(shared_pool, "RENEW_S", 0.01)

    async def main() -> None:
        host = await host_of(Pool(), "a#1")
        host._changed("1 of 2 small up")
        seen = await host.join("b#1", shared_part(CONFIG))
        first: Snapshot = await host.follow("b#1", seen)
        assert first.lines == ()
        assert first.version > seen  # told at once
        host._changed("2 of 2 small up")
        assert (await host.follow("b#1", first.version)).lines == ("2 of 2 small up",)

    within(main)


def test_whatever_ends_the_pool_is_told_to_its_runs_in_one_line():
    async def main() -> None:
        pool = Pool()

        async def start(on_progress: object) -> None:
            raise OSError(28, "No space left\non device")

        pool.start = start
        host = await host_of(pool, "a#1")
        await host._keep()
        told = (await host.follow("a#1", -1)).failure
        assert told == "the pool 'ours' failed: OSError: [Errno 28] No space left on device"

    within(main)
