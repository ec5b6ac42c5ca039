"""The client of language models over several servers: some die, leave, refuse or know nothing."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from adrs_ray.candidate import Completion
from adrs_ray.config import ModelConfig, parse_config
from adrs_ray.errors import RunError
from adrs_ray.generator.openai_model import OpenAIModel
from adrs_ray.generator.routing import PoolView, Router, Server
from adrs_ray.ledger import ModelStatus, RunStatus
from adrs_ray.local import answered_models, make_models, routers_of
from tests.fake_openai import FakeServer, Reply, limited
from tests.generator.test_openai_model import REQUEST, Watch, closed_port, script

POOL_KEY = "pool-canary-0a1b2c3d"


def view_of(*urls: str, key: str | None = POOL_KEY) -> PoolView:
    return PoolView({"small": tuple(Server(url, url) for url in urls)}, key=key)


class Pooled:
    """One model over servers that the test names, own ones unless `foreign`."""

    def __init__(self, *urls: str, foreign: bool = False, wait_s: float = 0.05, **fields: Any) -> None:
        values = {"model": "m-1", "max_tokens": 100, "timeout_s": 20.0, "gpus": 1.0, **fields}
        self.config = ModelConfig.model_validate(values)
        self.limiter = Watch(self.config)
        self.slept: list[float] = []
        self.router = Router("small", 64, foreign=foreign, wait_s=wait_s)
        self.router.set_view(view_of(*urls))
        self.model = OpenAIModel("small", self.config, self.limiter, self._sleep, self.router)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def run(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        async def main() -> Any:
            try:
                return await asyncio.wait_for(work(), 60)
            finally:
                await self.model.close()

        return asyncio.run(main())

    def __call__(self, number: int = 0) -> Completion:
        return self.run(lambda: self.ask(number))

    async def ask(self, number: int = 0) -> Completion:
        return await self.model.complete(
            replace(REQUEST, candidate=f"{number}-1", id=f"{number}-1/0", rng_key=(number,))
        )


async def in_flight(server: FakeServer, least: int = 1) -> None:
    while server.in_flight < least:
        await asyncio.sleep(0.005)


def test_a_server_that_is_killed_under_load_loses_no_request_and_none_is_charged_twice():
    a = FakeServer(lambda body: Reply("from a", latency_s=0.05))
    with FakeServer(lambda body: Reply("from b", latency_s=0.05)) as b:
        pooled = Pooled(usd_per_mtok_in=1.0, usd_per_mtok_out=1.0, max_in_flight=16)

        async def main() -> list[Completion]:
            with a:
                pooled.router.set_view(view_of(a.base_url, b.base_url))
                tasks = [asyncio.create_task(pooled.ask(number)) for number in range(60)]
                await in_flight(a, 4)
                await in_flight(b, 4)
            # The driver learns of it only later.
            await asyncio.gather(*tasks[:40])
            pooled.router.set_view(view_of(b.base_url))
            return await asyncio.gather(*tasks)

        got = pooled.run(main)
    assert [c.text in ("from a", "from b") for c in got] == [True] * 60
    assert not any(c.unavailable or c.usage.estimated for c in got)
    twice = [c for c in got if c.usage.attempts > 1]
    assert len(twice) >= 4
    assert {c.text for c in twice} == {"from b"}
    answered_a = sum(c.text == "from a" for c in got)
    assert len(b.received) == 60 - answered_a
    assert sum(c.usage.tokens for c in got if c.text == "from b") == b.billed_in + b.billed_out
    assert sum(used for _, used in pooled.limiter.ended) == sum(c.usage.tokens for c in got)
    assert pooled.slept == []


def test_seconds_that_a_lost_engine_took_are_counted_and_bounded_by_what_was_reserved():
    slow_death = Reply("never", latency_s=0.2, drop="before")
    with FakeServer(script(slow_death)) as a, FakeServer(script(Reply("ok", latency_s=0.1))) as b:
        pooled = Pooled(a.base_url, timeout_s=5.0)
        pooled.router.set_view(view_of(a.base_url))

        async def main() -> Completion:
            task = asyncio.create_task(pooled.ask())
            await in_flight(a)
            pooled.router.set_view(view_of(a.base_url, b.base_url))
            return await task

        got = pooled.run(main)
        assert (got.text, got.usage.attempts) == ("ok", 2)
        assert got.usage.gpu_s >= 0.3 > got.usage.latency_s
        both = Pooled(a.base_url, timeout_s=0.5, attempts=50, wait_s=20.0)
        got = both()
    assert got.text is None
    assert not got.unavailable
    assert 0.2 <= got.usage.gpu_s <= 0.5
    assert got.usage.gpu_s <= both.model.worst(REQUEST).gpu_s


def test_a_request_that_no_server_can_take_over_now_keeps_its_lost_seconds_for_when_it_is_sent_again():
    with FakeServer(script(Reply("never", latency_s=0.2, drop="before"), "ok")) as a:
        pooled = Pooled(a.base_url, timeout_s=5.0, wait_s=0.0)

        async def main() -> tuple[Completion, Completion]:
            first = await pooled.ask()
            await asyncio.sleep(1.0)  # the breaker's first pause
            return first, await pooled.ask()

        first, second = pooled.run(main)
    assert (first.text, first.unavailable) == (None, True)
    assert second.text == "ok"
    assert second.usage.gpu_s >= second.usage.latency_s + 0.19


def test_a_server_that_leaves_is_abandoned_at_once_and_its_requests_go_elsewhere():
    with FakeServer(script(Reply("late", latency_s=50.0))) as a, FakeServer(script("ok")) as b:
        pooled = Pooled(a.base_url)

        async def main() -> list[Completion]:
            tasks = [asyncio.create_task(pooled.ask(number)) for number in range(5)]
            await in_flight(a, 5)
            pooled.router.set_view(view_of(b.base_url))
            return await asyncio.gather(*tasks)

        assert [(c.text, c.usage.attempts) for c in pooled.run(main)] == [("ok", 2)] * 5


def test_what_a_foreign_server_loses_is_charged_at_most_and_not_bought_again():
    with FakeServer(script(Reply("lost", drop="middle"))) as a, FakeServer(script("ok")) as b:
        pooled = Pooled(foreign=True, usd_per_mtok_in=1.0, usd_per_mtok_out=1.0)
        pooled.router.set_view(view_of(a.base_url, b.base_url, key=None))
        found = pooled.run(lambda: asyncio.gather(*(pooled.ask(number) for number in range(24))))
    charged = [c for c in found if c.text is None]
    assert len(a.received) == len(charged) >= 1
    assert all("connection was lost" in c.detail and not c.unavailable for c in charged)
    assert all(c.usage.usd == pooled.model.worst(REQUEST).usd for c in charged)
    assert len(b.received) == 24 - len(charged)


@pytest.mark.parametrize("foreign", [False, True])
def test_a_server_where_nobody_listens_is_passed_over_at_once(foreign):
    dead = f"http://127.0.0.1:{closed_port()}/v1"
    with FakeServer(script("ok")) as b:
        pooled = Pooled(dead, b.base_url, foreign=foreign)
        found = pooled.run(lambda: asyncio.gather(*(pooled.ask(number) for number in range(24))))
    assert [c.text for c in found] == ["ok"] * 24
    assert pooled.slept == []


def test_a_pool_that_does_not_answer_is_waited_for_and_ends_no_run():
    for urls in ([], [f"http://127.0.0.1:{closed_port()}/v1"]):
        got = Pooled(*urls)()
        assert (got.text, got.unavailable, got.usage.tokens, got.usage.gpu_s) == (None, True, 0, 0.0)
    assert "none of its 1 servers answers" in got.detail


def test_a_plain_server_that_has_answered_in_an_earlier_life_of_the_run_is_away_and_not_a_wrong_address():
    config = ModelConfig(base_url=f"http://127.0.0.1:{closed_port()}/v1", model="m", max_tokens=100, attempts=1)

    async def ask(answered_before: bool) -> Completion:
        model = OpenAIModel("small", config, Watch(config), answered_before=answered_before)
        return await model.complete(REQUEST)

    assert asyncio.run(ask(True)).unavailable
    with pytest.raises(RunError, match="cannot connect"):
        asyncio.run(ask(False))


def test_a_model_has_answered_when_any_of_its_requests_was_not_lost():
    def status(**models: ModelStatus) -> RunStatus:
        return RunStatus(0, 1, {}, {}, (), {}, 0, 0, 0, models=models)

    found = answered_models(status(a=ModelStatus(3, lost=2), b=ModelStatus(2, lost=2), c=ModelStatus(open=1)))
    assert found == {"a"}


def test_models_without_an_address_get_routers_and_only_engines_of_the_pool_are_its_own():
    models = {"small": {"model": "a"}, "strong": {"model": "b"}, "hosted": {"model": "c", "base_url": "http://h/v1"}}
    pool = {"models": {"small": {}}, "endpoints": ["http://e/v1"], "max_in_flight": 3}
    config = parse_config({"generator": {"kind": "openai"}, "models": models, "pool": pool}, "a test")
    routers = routers_of(config)
    assert routers.keys() == {"small", "strong"}
    for router in routers.values():
        router.set_view(PoolView(key=POOL_KEY))
    assert (routers["small"].own, routers["strong"].own) == (True, False)
    assert make_models(config).keys() == {"mutate", *models}


@pytest.mark.parametrize("status", [401, 404])
def test_what_one_server_refuses_to_everybody_another_may_take(status):
    refusal = Reply(status=status, error={"message": "not here"})
    with FakeServer(script(refusal)) as a, FakeServer(script("ok")) as b:
        pooled = Pooled(a.base_url, b.base_url)
        found = pooled.run(lambda: asyncio.gather(*(pooled.ask(number) for number in range(24))))
    assert [c.text for c in found] == ["ok"] * 24
    assert 1 <= len(a.received) < 24


@pytest.mark.parametrize("foreign", [False, True])
def test_what_all_servers_refuse_ends_the_run_unless_own_ones_have_served_it_before(foreign, monkeypatch):
    monkeypatch.setattr("adrs_ray.generator.breaker.FIRST_PAUSE_S", 0.01)
    refusal = Reply(status=404, error={"message": "not here"})
    with FakeServer(script("ok", refusal)) as a, FakeServer(script(refusal)) as b:
        pooled = Pooled(b.base_url, foreign=foreign, wait_s=5.0)
        with pytest.raises(RunError, match=rf"model 'small' at 127.0.0.1:{b.port}: no model 'm-1' there"):
            pooled()
        pooled = Pooled(a.base_url, foreign=foreign, wait_s=5.0)

        async def main() -> Completion:
            assert (await pooled.ask()).text == "ok"
            pooled.router.set_view(view_of(a.base_url, b.base_url))
            return await pooled.ask()

        if foreign:
            with pytest.raises(RunError, match="not here"):
                pooled.run(main)
        else:
            got = pooled.run(main)
            assert (got.text, got.unavailable) == (None, True)


def test_a_server_that_wants_nobody_for_a_while_holds_up_nobody_elses_requests():
    with FakeServer(script(limited("500"))) as a, FakeServer(script("ok")) as b:
        pooled = Pooled(a.base_url, b.base_url)
        found = pooled.run(lambda: asyncio.gather(*(pooled.ask(number) for number in range(24))))
        assert [c.text for c in found] == ["ok"] * 24
        asked = len(a.received)
        assert [c.text for c in pooled.run(lambda: asyncio.gather(*(pooled.ask(n) for n in range(24))))] == ["ok"] * 24
    assert len(a.received) == asked >= 1
    assert pooled.limiter.holds == []
    assert all(seconds < 60 for seconds in pooled.slept)


def refused_line(pooled: Pooled) -> str:
    with pytest.raises(RunError) as raised:
        pooled()
    return str(raised.value)


def test_own_servers_get_the_pools_key_foreign_ones_the_models_and_neither_stands_elsewhere(monkeypatch, caplog, capfd):
    own_key = "sk-canary-of-the-model"
    monkeypatch.setenv("CANARY_KEY", own_key)
    caplog.set_level(logging.DEBUG)
    told = []
    for foreign, key in ((False, POOL_KEY), (True, own_key)):
        echo = Reply(f"your key is {key}")
        refused = Reply(status=401, error={"message": f"no such key: {key}"})
        with FakeServer(script(echo, refused)) as server:
            pooled = Pooled(server.base_url, foreign=foreign, api_key_env="CANARY_KEY")
            got = pooled()
            assert key not in repr(got)
            told.append(repr(pooled()) if not foreign else refused_line(pooled))
        assert {r.headers["authorization"] for r in server.received} == {f"Bearer {key}"}
        told += [got.detail, repr(pooled.model), repr(pooled.router), json.dumps([r.body for r in server.received])]
    text = "".join([*told, caplog.text, *capfd.readouterr()])
    assert POOL_KEY not in text
    assert own_key not in text
