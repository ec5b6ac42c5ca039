"""Engines and candidates on one GPU: no job runs while an engine is awake, and none is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adrs_ray.candidate import Evaluation, Failure, FailureKind, Verdict
from adrs_ray.errors import RunError
from adrs_ray.evaluator import EvaluationJob
from adrs_ray.generator.routing import PoolView, Server
from cluster import gpu_turns
from cluster.evaluator import SlotNeed
from cluster.gpu_turns import GpuTurns, Places
from cluster.shared_slots import SharedSlots, device_groups
from cluster.wire import WireClient


class Pool:
    """Sleeps and wakes, after as many failures as it is told; half of a failed attempt has been done."""

    def __init__(self, sleep_fails: int = 0, wake_fails: int = 0, load: float = 1.0) -> None:
        self.awake = True
        self.sleep_fails, self.wake_fails, self.load = sleep_fails, wake_fails, load
        self.log: list[str] = []
        self.there = True
        """Whether its engine has a place."""

    async def sleep(self) -> float:
        await asyncio.sleep(0)
        if self.sleep_fails:
            self.sleep_fails -= 1
            self.log.append("sleep failed")
            raise RunError("engine small-0 does not sleep")
        self.awake = False
        self.log.append("sleep")
        return 0.1

    async def wake(self) -> float:
        self.awake = True
        await asyncio.sleep(0)
        if self.wake_fails:
            self.wake_fails -= 1
            self.log.append("wake failed")
            raise RunError("engine small-0 does not wake")
        self.log.append("wake")
        return 0.1

    def gpus(self) -> Places:
        return [("node", ("0",))] if self.there else []

    def view(self) -> PoolView:
        servers = (Server("small-0", "http://127.0.0.1:1/v1", self.load),) if self.awake and self.there else ()
        return PoolView({"small": servers})


class Slots:
    """Measures when the engines are asleep, and finds out when they are not."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.jobs: list[str] = []
        self.places: list[Places] = []
        self.broken: Exception | None = None

    def lacks(self, places: Places) -> str | None:
        return None if places else "stage measured needs 1 GPUs: no replica of the pool has them"

    async def evaluate(self, job: EvaluationJob, places: Places) -> Verdict:
        assert places
        self.jobs.append(job.candidate)
        self.places.append(places)
        for _ in range(3):
            assert not self.pool.awake, "measured beside an engine"
            await asyncio.sleep(0)
        if self.broken is not None:
            raise self.broken
        if job.candidate.startswith("dead"):
            return Failure(FailureKind.INFRASTRUCTURE, "quarantined: 2 evaluator processes died")
        return Evaluation(1.0, {}, (), "verified", 0.0)


def job(name: str | int) -> EvaluationJob:
    return EvaluationJob(str(name), "", stage="measured")


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(gpu_turns, "RETRY_S", (0.001, 0.002))
    monkeypatch.setattr(gpu_turns, "LOOK_S", 0.005)


def done(main: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_full_batch_begins_a_turn_and_engines_wake_after_it():
    async def main() -> None:
        pool = Pool()
        slots = Slots(pool)
        turns = GpuTurns(pool, slots, batch=4, wait_s=1e6)
        await turns.start("127.0.0.1")
        tasks = [asyncio.create_task(turns.evaluate(job(n))) for n in range(3)]
        await asyncio.sleep(0.05)
        assert pool.log == []
        assert turns.stats().waiting == 3
        tasks.append(asyncio.create_task(turns.evaluate(job(3))))
        verdicts = await asyncio.gather(*tasks)
        assert all(isinstance(verdict, Evaluation) for verdict in verdicts)
        while not pool.awake or turns.stats().turns == 0:
            await asyncio.sleep(0.001)
        await turns.close()
        assert pool.log == ["sleep", "wake"]
        stats = turns.stats()
        assert (stats.turns, stats.candidates, stats.waiting) == (1, 4, 0)
        assert stats.candidates_per_turn == 4
        assert stats.asleep_s >= stats.to_sleep_s + stats.to_wake_s >= stats.swap_s > 0

    done(main)


def test_the_first_of_a_batch_that_is_not_full_waits_only_so_long():
    async def main() -> None:
        pool = Pool()
        turns = GpuTurns(pool, Slots(pool), batch=100, wait_s=0.02)
        await turns.start("127.0.0.1")
        assert isinstance(await turns.evaluate(job(0)), Evaluation)
        assert isinstance(await turns.evaluate(job(1)), Evaluation)
        await turns.close()
        assert pool.awake

    done(main)


def test_engines_without_work_are_not_waited_for(monkeypatch):
    monkeypatch.setattr(gpu_turns, "IDLE_S", 0.02)

    async def main() -> None:
        pool = Pool(load=2.0)
        turns = GpuTurns(pool, Slots(pool), batch=100, wait_s=1e6)
        await turns.start("127.0.0.1")
        waiting = asyncio.create_task(turns.evaluate(job(0)))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        pool.load = 0.0
        assert isinstance(await waiting, Evaluation)
        await turns.close()

    done(main)


def test_what_arrives_during_a_turn_is_measured_in_it_but_not_without_end():
    async def main() -> None:
        pool = Pool()
        slots = Slots(pool)
        turns = GpuTurns(pool, slots, batch=2, wait_s=0.01)
        await turns.start("127.0.0.1")

        async def island(number: int) -> None:
            for step in range(10):
                await turns.evaluate(job(f"{number}-{step}"))

        await asyncio.gather(*(island(n) for n in range(2)))
        await turns.close()
        stats = turns.stats()
        assert stats.candidates == len(slots.jobs) == 20
        assert 5 <= stats.turns < 20
        assert pool.log.count("sleep") == pool.log.count("wake") == stats.turns

    done(main)


@settings(max_examples=40)
@given(
    sleep_fails=st.integers(0, 4),
    wake_fails=st.integers(0, 4),
    batch=st.integers(1, 6),
    arrivals=st.lists(st.integers(0, 3), min_size=1, max_size=12),
)
def test_no_job_runs_beside_an_engine_and_each_has_its_verdict(sleep_fails, wake_fails, batch, arrivals):
    async def main() -> None:
        pool = Pool(sleep_fails, wake_fails)
        slots = Slots(pool)
        turns = GpuTurns(pool, slots, batch, wait_s=0.002)
        await turns.start("127.0.0.1")
        tasks = []
        for number, ticks in enumerate(arrivals):
            for _ in range(ticks):
                await asyncio.sleep(0)
            tasks.append(asyncio.create_task(turns.evaluate(job(f"dead-{number}" if number % 5 == 4 else number))))
        verdicts = await asyncio.gather(*tasks)
        assert [isinstance(v, Failure) for v in verdicts] == [n % 5 == 4 for n in range(len(arrivals))]
        assert sorted(slots.jobs) == sorted(f"dead-{n}" if n % 5 == 4 else str(n) for n in range(len(arrivals)))
        await turns.close()
        assert pool.awake

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_pool_that_never_sleeps_ends_the_run_with_one_line(monkeypatch):
    monkeypatch.setattr(gpu_turns, "GIVE_UP_S", 0.02)

    async def main() -> None:
        pool = Pool(sleep_fails=10**6)
        slots = Slots(pool)
        turns = GpuTurns(pool, slots, batch=1, wait_s=0.0)
        await turns.start("127.0.0.1")
        with pytest.raises(RunError, match=r"do not sleep.*engine small-0") as caught:
            await turns.evaluate(job(0))
        assert "\n" not in str(caught.value)
        assert slots.jobs == []
        await turns.close()
        assert pool.log[-1] == "wake"

    done(main)


def test_a_pool_that_does_not_wake_says_so_and_jobs_wait_for_their_turn():
    async def main() -> None:
        pool = Pool(wake_fails=10**6)
        turns = GpuTurns(pool, Slots(pool), batch=1, wait_s=0.0)
        await turns.start("127.0.0.1")
        await turns.evaluate(job(0))
        while turns.stats().problem is None:
            await asyncio.sleep(0.001)
        assert "does not wake" in (turns.stats().problem or "")
        waiting = asyncio.create_task(turns.evaluate(job(1)))
        await asyncio.sleep(0.02)
        assert not waiting.done()
        pool.wake_fails = 1
        assert isinstance(await waiting, Evaluation)
        await turns.close()

    done(main)


def test_slots_that_refuse_for_good_are_an_error_of_the_job_and_engines_wake_all_the_same():
    async def main() -> None:
        pool = Pool()
        slots = Slots(pool)
        slots.broken = RunError("no slot for stage measured has taken a job for 600 s")
        turns = GpuTurns(pool, slots, batch=1, wait_s=0.0)
        await turns.start("127.0.0.1")
        with pytest.raises(RunError, match="no slot for stage measured"):
            await turns.evaluate(job(0))
        assert slots.jobs == ["0"] * gpu_turns.TRIES
        assert pool.log.count("sleep") == gpu_turns.TRIES
        slots.broken = None
        assert isinstance(await turns.evaluate(job(1)), Evaluation)
        await turns.close()
        assert pool.awake

    done(main)


@pytest.mark.parametrize("when", ["before the turn", "while it falls asleep"])
def test_jobs_wait_for_an_engine_that_was_lost(when):
    async def main() -> None:
        pool = Pool()
        slots = Slots(pool)
        asleep = pool.sleep

        async def lost() -> float:
            pool.there = False
            return await asleep()

        if when == "before the turn":
            pool.there = False
        else:
            pool.sleep = lost  # type: ignore[method-assign]
        turns = GpuTurns(pool, slots, batch=1, wait_s=0.0)
        await turns.start("127.0.0.1")
        waiting = asyncio.create_task(turns.evaluate(job(0)))
        while turns.stats().problem is None:
            await asyncio.sleep(0.001)
        assert "no replica of the pool has them" in (turns.stats().problem or "")
        # Engines are not put to sleep for a turn that cannot be, and not left asleep after one.
        assert pool.log == ([] if when == "before the turn" else ["sleep", "wake"])
        assert slots.jobs == []
        assert not waiting.done()
        pool.sleep, pool.there = asleep, True  # type: ignore[method-assign]
        assert isinstance(await waiting, Evaluation)
        await turns.close()
        assert pool.awake

    done(main)


def test_engines_that_never_come_back_end_the_run_with_one_line(monkeypatch):
    monkeypatch.setattr(gpu_turns, "GIVE_UP_S", 0.02)

    async def main() -> None:
        pool = Pool()
        pool.there = False
        turns = GpuTurns(pool, Slots(pool), batch=1, wait_s=0.0)
        await turns.start("127.0.0.1")
        with pytest.raises(RunError, match=r"no turn on the GPUs .* no replica of the pool has them") as caught:
            await turns.evaluate(job(0))
        assert "\n" not in str(caught.value)
        assert pool.log == []
        pool.there = True
        assert isinstance(await turns.evaluate(job(1)), Evaluation)
        await turns.close()

    done(main)


def test_a_lost_engine_is_not_an_idle_one(monkeypatch):
    monkeypatch.setattr(gpu_turns, "IDLE_S", 0.02)

    async def main() -> None:
        pool = Pool()
        there = pool.view()
        views = [PoolView(), PoolView({"small": ()}), PoolView({"small": (), "strong": there.servers["small"]})]
        turns = GpuTurns(pool, Slots(pool), batch=100, wait_s=1e6)
        pool.load = 0.0
        for view in views:
            pool.view = lambda view=view: view  # type: ignore[method-assign]
            assert not turns._idle()
        pool.view = lambda: PoolView({"small": (Server("a", "http://a/v1"),)})  # type: ignore[method-assign]
        assert turns._idle()

    done(main)


def test_jobs_whose_node_was_lost_in_a_turn_are_measured_in_the_next_in_their_order():
    async def main() -> None:
        pool = Pool()
        slots = Slots(pool)
        slots.broken = RunError("no slot for stage measured has taken a job for 30 s")
        turns = GpuTurns(pool, slots, batch=3, wait_s=0.0)
        await turns.start("127.0.0.1")
        tasks = [asyncio.create_task(turns.evaluate(job(n))) for n in range(3)]
        while len(slots.jobs) < 6:
            await asyncio.sleep(0)
        slots.broken = None
        assert all(isinstance(verdict, Evaluation) for verdict in await asyncio.gather(*tasks))
        await turns.close()
        assert slots.jobs[:6] == ["0", "1", "2"] * 2
        assert pool.log.count("sleep") == pool.log.count("wake") == turns.stats().turns
        assert turns.stats().candidates == 3

    done(main)


def test_a_turn_in_which_a_job_was_refused_begins_no_more():
    async def main() -> None:
        pool = Pool()
        slots = Slots(pool)
        measure, release = slots.evaluate, asyncio.Event()

        async def evaluate(job: EvaluationJob, places: Places) -> Verdict:
            slots.jobs.append(job.candidate)
            if job.candidate == "slow":
                await release.wait()
            elif not release.is_set():
                raise RunError("no slot for stage measured has taken a job for 30 s")
            return await measure(job, places)

        slots.evaluate = evaluate  # type: ignore[method-assign]
        turns = GpuTurns(pool, slots, batch=2, wait_s=0.0)
        await turns.start("127.0.0.1")
        tasks = [asyncio.create_task(turns.evaluate(job(name))) for name in ("slow", "refused")]
        while len(slots.jobs) < 2:
            await asyncio.sleep(0)
        tasks.append(asyncio.create_task(turns.evaluate(job("late"))))
        await asyncio.sleep(0.02)
        assert slots.jobs == ["slow", "refused"]
        release.set()
        assert all(isinstance(verdict, Evaluation) for verdict in await asyncio.gather(*tasks))
        assert pool.log[:3] == ["sleep", "wake", "sleep"]
        await turns.close()

    done(main)


def test_closing_does_not_wait_for_engines_that_do_not_wake(monkeypatch):
    monkeypatch.setattr(gpu_turns, "CLOSE_S", 0.02)

    async def main() -> None:
        pool = Pool()

        async def hang() -> float:
            await asyncio.Event().wait()
            return 0.0

        pool.wake = hang  # type: ignore[method-assign]
        turns = GpuTurns(pool, Slots(pool), batch=1, wait_s=0.0)
        await turns.start("127.0.0.1")
        await turns.evaluate(job(0))
        await asyncio.wait_for(turns.close(), 10)

    done(main)


def test_an_island_that_was_replaced_finds_its_job_under_way():
    async def main() -> None:
        pool = Pool()
        slots = Slots(pool)
        turns = GpuTurns(pool, slots, batch=2, wait_s=1e6)
        address = await turns.start("127.0.0.1")

        async def where():
            return address

        lost, fresh = WireClient(where), WireClient(where)
        first = asyncio.create_task(lost.call("evaluate", job(0)))
        await asyncio.sleep(0.05)
        await lost.close()
        again = asyncio.create_task(fresh.call("evaluate", job(0)))
        other = asyncio.create_task(fresh.call("evaluate", job(1)))
        assert isinstance(await again, Evaluation)
        await other
        assert sorted(slots.jobs) == ["0", "1"]
        with pytest.raises(Exception, match="lost"):
            await first
        await fresh.close()
        await turns.close()

    done(main)


def test_a_turn_that_is_cut_short_wakes_the_engines():
    async def main() -> None:
        pool = Pool()
        slots = Slots(pool)
        release = asyncio.Event()

        async def hang(job: EvaluationJob, places: Places) -> Verdict:
            await release.wait()
            raise AssertionError

        slots.evaluate = hang  # type: ignore[method-assign]
        turns = GpuTurns(pool, slots, batch=1, wait_s=0.0)
        await turns.start("127.0.0.1")
        waiting = asyncio.create_task(turns.evaluate(job(0)))
        while pool.awake:
            await asyncio.sleep(0.001)
        await turns.close()
        assert pool.awake
        with pytest.raises(asyncio.CancelledError):
            await waiting

    done(main)


@pytest.mark.parametrize(
    ("places", "gpus", "groups"),
    [
        ([("a", ("0",))], 1, [("a", "0")]),
        ([("a", ("0", "1")), ("b", ("0", "1"))], 2, [("a", "0,1"), ("b", "0,1")]),
        ([("a", ("0",)), ("a", ("1",)), ("a", ("2",))], 2, [("a", "0,1")]),
        ([("a", ("0", "1"))], 0.5, [("a", "0"), ("a", "1")]),
        ([("a", ("0",)), ("a", ("0",))], 1, [("a", "0")]),
        ([("a", ("0",))], 2, []),
        ([("a", ())], 1, []),
    ],
)
def test_slots_share_no_device(places, gpus, groups):
    assert device_groups(places, gpus) == groups
    source = SimpleNamespace(
        gpu=SlotNeed(("measured",), 1, 0, gpus), config=SimpleNamespace(evaluator=SimpleNamespace(gpu_slots=None))
    )
    assert (SharedSlots(source).lacks(places) is None) is bool(groups)
