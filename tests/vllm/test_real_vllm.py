"""The model pool with real vLLM servers on CPUs: two layers of random weights, nothing in the servers' place.

    ADRS_VLLM_PYTHON=/path/to/python python -m pytest -s tests/vllm        # as `make test-vllm` does

Prints what it measured; `docs/model_pool.md` has one such result.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from adrs_ray.config import RunConfig, parse_config
from adrs_ray.generator import Completion, GenerationRequest, Message
from adrs_ray.generator.connection import Connection
from adrs_ray.local import close_models, make_models, routers_of
from adrs_ray.upkeep import follow
from cluster.model_pool import ModelPool
from tests.processes import descendants, kill, table, wait_gone
from tests.vllm import tiny_model

pytestmark = [pytest.mark.vllm, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1800)]

REPLICAS = 2
REQUESTS = 80
IN_FLIGHT = 8
GONE_S = 60.0
"""Killed processes of many threads need CPU to end, and the other replica takes all there is of two cores."""
LONG = "Here is a program to improve.\n" + "\n".join(f"value_{n} = {n} * {n + 1}" for n in range(120))
"""Several blocks of the prefix cache, which are of 128 tokens on CPUs."""


class Pool:
    """A pool that is up, on an event loop that runs while somebody waits for something."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.runner = asyncio.Runner()
        self.pool = ModelPool(config, "real")
        self.lines: list[str] = []

    def run(self, work: Coroutine[Any, Any, Any], seconds: float = 900) -> Any:
        return self.runner.run(asyncio.wait_for(work, seconds))

    async def all_up(self) -> None:
        view = self.pool.view()
        while len(view.servers["tiny"]) < REPLICAS:
            view = await self.pool.changed(view)

    async def chat(self, **fields: Any) -> dict[str, Any]:
        """A request to the first replica."""
        view = self.pool.view()
        connection = Connection(view.servers["tiny"][0].base_url, view.key, direct=True)
        body = {"model": "tiny", "max_tokens": 16, "ignore_eos": True, **fields}
        body.setdefault("messages", [{"role": "user", "content": "Say something."}])
        try:
            answer = await connection.post("/chat/completions", json.dumps(body).encode())
        finally:
            await connection.close()
        assert answer.status == 200, answer.content
        reply: dict[str, Any] = json.loads(answer.content)
        return reply


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    import ray

    from cluster.runtime import connect

    python = os.environ["ADRS_VLLM_PYTHON"]
    folder = tmp_path_factory.mktemp("tiny")
    subprocess.run([python, tiny_model.__file__, str(folder)], check=True, timeout=600)
    engine = {
        "source": str(folder),
        "replicas": REPLICAS,
        "device": "cpu",
        "dtype": "float32",
        "cpus": 1,
        "engine_args": ["--enforce-eager"],
        "env": {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"},
        "start_timeout_s": 900,
    }
    model = {
        "model": "tiny",
        "context_tokens": tiny_model.CONTEXT,
        "max_tokens": 64,
        "extra_body": {"ignore_eos": True},
        "timeout_s": 120,
    }
    config = parse_config(
        {
            "generator": {"kind": "openai"},
            "models": {"tiny": model},
            "pool": {"python": python, "models": {"tiny": engine}},
        },
        "test",
    )
    connect(None, 4, 0)
    made = Pool(config)
    try:
        begun = time.monotonic()
        made.run(made.pool.start(made.lines.append))
        first = time.monotonic() - begun
        made.run(made.all_up())
        print(f"\nfirst of {REPLICAS} replicas up after {first:.1f} s, all after {time.monotonic() - begun:.1f} s")
        yield made
        family = set(descendants(os.getpid()))
        begun = time.monotonic()
        made.run(made.pool.close())
        print(f"\nclosed in {time.monotonic() - begun:.1f} s")
        assert not [command for pid, command in engines(family).items()]
    finally:
        made.run(made.pool.close())
        made.runner.close()
        ray.shutdown()


def engines(among: set[int]) -> dict[int, str]:
    """Processes of vLLM: servers, cores and workers."""
    return {pid: command for pid, (_, command) in table().items() if pid in among and is_engine(command)}


def is_engine(command: str) -> bool:
    return "VLLM::" in command or "vllm.entrypoints" in command


def test_a_seed_repeats_an_answer_and_n_gives_several(real: Pool) -> None:
    once = real.run(real.chat(seed=7, temperature=1.0, n=3))
    again = real.run(real.chat(seed=7, temperature=1.0, n=3))
    texts = [choice["message"]["content"] for choice in once["choices"]]
    assert texts == [choice["message"]["content"] for choice in again["choices"]]
    assert len(set(texts)) == 3
    other = real.run(real.chat(seed=8, temperature=1.0, n=3))
    assert texts != [choice["message"]["content"] for choice in other["choices"]]


def test_a_prompt_that_comes_again_is_in_the_prefix_cache(real: Pool) -> None:
    async def ask_again() -> tuple[float, float]:
        messages = [{"role": "user", "content": LONG}]
        tokens = 0
        for number in range(3):
            reply = await real.chat(messages=[*messages, {"role": "user", "content": f"Variant {number}."}])
            tokens = reply["usage"]["prompt_tokens"]
        while (real.pool.stats()[0].metrics.cache_queries or 0.0) < 3 * tokens:
            await asyncio.sleep(0.2)  # metrics are read every two seconds
        metrics = real.pool.stats()[0].metrics
        print(
            f"\n3 prompts of {tokens} tokens with one beginning: {metrics.cache_hits:.0f} tokens of "
            f"{metrics.cache_queries:.0f} were in the prefix cache"
        )
        return metrics.cache_hits or 0.0, tokens

    hits, tokens = real.run(ask_again(), 300)
    assert hits >= 2 * (tokens // 128 - 1) * 128


def test_an_engine_that_is_killed_under_load_costs_no_request(real: Pool) -> None:
    async def under_load() -> tuple[list[Completion], float]:
        routers = routers_of(real.config)
        models = make_models(real.config, routers=routers)
        following = asyncio.create_task(follow(real.pool, routers["tiny"].set_view))
        room, done = asyncio.Semaphore(IN_FLIGHT), []

        async def one(number: int) -> None:
            request = GenerationRequest(
                candidate=f"{number % 4}-{number}",
                operator="rewrite",
                parents=("",),
                rng_key=(0, 0, number),
                id=f"{number % 4}-{number}/0",
                model="tiny",
                messages=(Message("user", LONG), Message("user", f"Change {number}.")),
            )
            async with room:
                done.append(await models["tiny"].complete(request))

        begun = time.monotonic()
        asking = [asyncio.create_task(one(number)) for number in range(REQUESTS)]
        while len(done) < REQUESTS // 4:
            await asyncio.sleep(0.05)
        ours = engines(set(descendants(os.getpid())))
        servers = {pid for pid, command in ours.items() if "vllm.entrypoints" in command and "guard" not in command}
        family = set(descendants(min(servers)))
        before = {server.id for server in real.pool.view().servers["tiny"]}
        kill([min(servers)])
        killed = time.monotonic()
        left = await asyncio.to_thread(wait_gone, family, GONE_S)
        print(f"\nserver killed: its {len(family)} processes were gone after {time.monotonic() - killed:.1f} s")
        assert left == {}
        await asyncio.gather(*asking)
        seconds = time.monotonic() - begun
        following.cancel()
        await close_models(models)
        while {server.id for server in real.pool.view().servers["tiny"]} == before:
            await real.pool.changed(real.pool.view())
        await real.all_up()
        print(f"replaced {time.monotonic() - killed:.1f} s after the kill")
        assert len({server.id for server in real.pool.view().servers["tiny"]} & before) == REPLICAS - 1
        return done, seconds

    completions, seconds = real.run(under_load())
    lost = [c.detail for c in completions if not c.text]
    attempts = sum(c.usage.attempts for c in completions)
    print(f"{len(completions)} requests, {IN_FLIGHT} in flight, {seconds:.1f} s: {attempts} attempts, {len(lost)} lost")
    assert lost == []
    assert len(completions) == REQUESTS
    assert attempts > REQUESTS  # the kill did hit requests
