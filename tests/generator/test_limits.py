"""Limits: what a bucket lets through, and in which order those who wait are served."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adrs_ray.config import ModelConfig
from adrs_ray.generator.limits import Gate, LocalLimiter, TokenBucket


def model(**fields) -> ModelConfig:
    return ModelConfig(base_url="http://127.0.0.1:1/v1", model="m", **fields)


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.time = 1000.0
        self._alarms: list[tuple[float, asyncio.Event]] = []

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        bell = asyncio.Event()
        self._alarms.append((self.time + seconds, bell))
        await bell.wait()

    async def settle(self) -> None:
        for _ in range(200):
            await asyncio.sleep(0)

    async def run(self, until: float) -> None:
        """Ring every alarm up to a time, one after another."""
        await self.settle()
        while due := [alarm for alarm in self._alarms if alarm[0] <= until]:
            alarm = min(due, key=lambda a: a[0])
            self._alarms.remove(alarm)
            self.time = max(self.time, alarm[0])
            alarm[1].set()
            await self.settle()
        self.time = max(self.time, until)


STEPS = st.lists(st.tuples(st.floats(0, 5), st.integers(1, 200)), min_size=1, max_size=60)


@given(st.floats(0.01, 100), st.floats(1, 100), STEPS)
def test_no_window_lets_through_more_than_rate_times_window_plus_burst(per_s, burst, steps):
    now, taken = 50.0, []
    bucket = TokenBucket(per_s, burst, now)
    for pause, amount in steps:
        now += pause
        if bucket.wait_s(amount, now) == 0:
            bucket.take(amount, now)
            taken.append((now, amount))
    for first in range(len(taken)):
        total = largest = 0
        for at, amount in taken[first:]:
            total, largest = total + amount, max(largest, amount)
            assert total <= per_s * (at - taken[first][0]) + max(burst, largest) + 1e-6


@given(st.floats(0.01, 1000), st.floats(1, 1000), st.lists(st.integers(1, 3000), min_size=1, max_size=30))
def test_who_waits_as_long_as_it_is_told_gets_through_and_no_allowance_is_lost(per_s, burst, amounts):
    now = 1e6
    bucket = TokenBucket(per_s, burst, now)
    for amount in amounts:
        waits = 0
        while (wait := bucket.wait_s(amount, now)) > 0:
            now += wait
            waits += 1
            assert waits < 10
        bucket.take(amount, now)
    assert (now - 1e6) * per_s <= sum(amounts) + len(amounts) * 0.01 * per_s + 1e-3


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=1, max_size=30))
def test_what_is_given_back_never_fills_a_bucket_beyond_its_burst(pairs):
    bucket = TokenBucket(1.0, 100.0, 0.0)
    for reserved, used in pairs:
        bucket.take(reserved, 0.0)
        bucket.take(used - reserved, 0.0)
    bucket.take(100, 10_000.0)
    assert bucket.wait_s(1, 10_000.0) == pytest.approx(1.0)


def test_a_clock_that_goes_back_gives_no_allowance():
    bucket = TokenBucket(1.0, 1.0, 100.0)
    bucket.take(1, 100.0)
    assert bucket.wait_s(1, 50.0) > 0
    assert bucket.wait_s(1, 100.5) == pytest.approx(0.5)


def test_a_gate_takes_nothing_when_one_of_two_limits_says_no():
    gate = Gate(model(requests_per_min=60, tokens_per_min=6000), 0.0)
    assert gate.start(100, 0.0) == 0
    assert gate.start(100, 0.5) == pytest.approx(0.5)
    assert gate.start(100, 1.0) == 0
    assert gate.start(50, 2.0) == 0
    assert gate.start(80, 2.1) > 0.5


def test_a_shorter_hold_does_not_end_a_longer_one():
    gate = Gate(model(), 0.0)
    gate.hold(10.0, 0.0)
    gate.hold(1.0, 1.0)
    assert gate.start(1, 5.0) == pytest.approx(5.0)
    assert gate.start(1, 10.0) == 0


def starts(config: ModelConfig, requests: list[int], until: float, hold: float = 0.0) -> list[tuple[int, float]]:
    """(request, second) of every start, when all ask at once."""
    clock, started = Clock(), []
    limiter = LocalLimiter({"m": config}, clock.now, clock.sleep)

    async def one(number: int, tokens: int) -> None:
        await limiter.lease("m", tokens)
        started.append((number, clock.time - 1000.0))
        await limiter.done("m", tokens, tokens)

    async def main() -> None:
        if hold:
            await limiter.hold("m", hold)
        tasks = [asyncio.create_task(one(n, tokens)) for n, tokens in enumerate(requests)]
        await clock.run(1000.0 + until)
        for task in tasks:
            task.cancel()

    asyncio.run(main())
    return started


def test_requests_start_in_the_order_they_came_and_at_the_rate():
    got = starts(model(requests_per_min=120), [1] * 6, until=100)
    assert [number for number, _ in got] == list(range(6))
    assert [at for _, at in got] == pytest.approx([0, 0, 0.5, 1.0, 1.5, 2.0], abs=0.01)


def test_a_large_request_is_not_overtaken_and_is_paid_for_afterwards():
    got = starts(model(tokens_per_min=6000), [100, 500, 100], until=100)
    assert [number for number, _ in got] == [0, 1, 2]
    assert [at for _, at in got] == pytest.approx([0, 1.0, 6.0], abs=0.05)


def test_without_limits_nobody_waits_and_a_hold_stops_everybody():
    assert [at for _, at in starts(model(), [10**6] * 50, until=0)] == [0.0] * 50
    assert starts(model(), [1] * 5, until=6.9, hold=7.0) == []
    assert len(starts(model(), [1] * 5, until=7.1, hold=7.0)) == 5


def test_no_more_are_in_flight_than_allowed_and_who_gives_up_leaves_no_gap():
    async def main() -> tuple[int, list[int]]:
        limiter = LocalLimiter({"m": model(max_in_flight=3)})
        busy = most = 0
        order: list[int] = []

        async def one(number: int) -> None:
            nonlocal busy, most
            await limiter.lease("m", 1)
            order.append(number)
            busy += 1
            most = max(most, busy)
            for _ in range(3):
                await asyncio.sleep(0)
            busy -= 1
            await limiter.done("m", 1, 1)

        tasks = [asyncio.create_task(one(number)) for number in range(20)]
        await asyncio.sleep(0)
        tasks[5].cancel()
        tasks[6].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return most, order

    most, order = asyncio.run(asyncio.wait_for(main(), 30))
    assert most == 3
    assert order == [n for n in range(20) if n not in (5, 6)]


def test_who_gives_up_while_it_waits_for_a_limit_frees_its_place():
    async def main() -> None:
        clock = Clock()
        limiter = LocalLimiter({"m": model(max_in_flight=1, requests_per_min=60)}, clock.now, clock.sleep)
        await limiter.lease("m", 1)
        await limiter.done("m", 1, 1)
        waiting = asyncio.create_task(limiter.lease("m", 1))
        await clock.settle()
        waiting.cancel()
        after = asyncio.create_task(limiter.lease("m", 1))
        await clock.run(1010.0)
        assert after.done()

    asyncio.run(main())


def test_unused_tokens_let_the_next_one_start_earlier():
    config = model(tokens_per_min=6000)
    early, late = Gate(config, 0.0), Gate(config, 0.0)
    for gate in (early, late):
        assert gate.start(1000, 0.0) == 0
    early.give_back(900, 0.0)
    assert early.start(100, 0.0) == pytest.approx(1.0)
    assert late.start(100, 0.0) == pytest.approx(10.0)


def test_the_limiter_gives_back_what_a_request_did_not_use():
    async def second_start(used: int) -> float:
        clock = Clock()
        limiter = LocalLimiter({"m": model(tokens_per_min=6000)}, clock.now, clock.sleep)
        started: list[float] = []

        async def second() -> None:
            await limiter.lease("m", 100)
            started.append(clock.time - 1000.0)

        await limiter.lease("m", 1000)
        await limiter.done("m", 1000, used)
        waiting = asyncio.create_task(second())
        await clock.run(1100.0)
        await waiting
        return started[0]

    assert asyncio.run(second_start(100)) == pytest.approx(1.0, abs=0.01)
    assert asyncio.run(second_start(1000)) == pytest.approx(10.0, abs=0.01)
    assert asyncio.run(second_start(2000)) == pytest.approx(20.0, abs=0.01)
