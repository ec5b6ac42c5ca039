"""A language model behind any OpenAI-compatible servers: vLLM, Ray Serve LLM, hosted ones.

What a request can cost at most is reserved by the caller (`worst`), and that pays for one charged attempt. So only what
was certainly not charged is tried again in here; an attempt that was sent and never answered ends the request at its
worst cost. Servers of the run's own pool take no money, only time: what is lost with one of them is tried at another,
as long as all attempts together stay within `timeout_s`, for which GPU-seconds are reserved.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from adrs_ray.config import ModelConfig
from adrs_ray.errors import RunError, UsageError
from adrs_ray.generator import Completion, GenerationRequest, Usage
from adrs_ray.generator.attempts import Attempts, Trouble
from adrs_ray.generator.charging import cap_of, expected_prompt, extra_of, gpu_seconds, usage_of, worst_of
from adrs_ray.generator.connection import place_of
from adrs_ray.generator.limits import Limiter
from adrs_ray.generator.reply import Reply, read_reply
from adrs_ray.generator.retry import Fate, backoff_s
from adrs_ray.generator.routing import Lease, NoServerError, Router, Server, prefix_key

_OURS = ("model", "messages", "stream", "stream_options", "n", "best_of", "max_tokens", "max_completion_tokens")
"""Fields of a request on which the bound of its cost rests."""
_LESS_EFFORT = {"high": "medium", "medium": "low", "low": "low"}


@dataclass(slots=True)
class _Run:
    """One request on its way through its attempts."""

    server: Server
    """That the last attempt was made at."""
    lost_s: float = 0.0
    """At servers of our own which lost it."""
    latency_s: float = 0.0
    """Of the last attempt."""
    attempts: int = 0
    avoid: set[str] = field(default_factory=set)
    """Servers where it failed."""
    refused: set[str] = field(default_factory=set)
    """Servers that refuse it as they would refuse any other."""


class OpenAIModel:
    """A `Model` over HTTP. One per process and event loop; `limiter` knows it by `name`.

    Raises UsageError when the variable with its key is missing or holds no key, and when `extra_body` sets what the
    accounting rests on. A field that `extra_body` sets to null is not sent at all.
    """

    paid = True
    durable = False
    redraws = 0

    def __init__(
        self,
        name: str,
        config: ModelConfig,
        limiter: Limiter,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        router: Router | None = None,
        answered_before: bool = False,
    ) -> None:
        """`router` chooses among servers; it goes without exactly when there is a base_url. `answered_before`: in an
        earlier life of the run the model did answer; so a server where nobody listens is away, its address not wrong.
        """
        self._name = name
        self._config = config
        self._limiter = limiter
        self._sleep = sleep
        self._router = router
        _check(name, config)
        self._only = Lease(Server("", config.base_url or ""))
        self._attempts = Attempts(name, config, router, answered_before)
        self._lost_s: dict[str, float] = {}
        """By request: seconds that it spent at servers of our own which lost it."""

    @property
    def name(self) -> str:
        return self._name

    def worst(self, request: GenerationRequest) -> Usage:
        return worst_of(self._config, request)

    async def complete(self, request: GenerationRequest) -> Completion:
        rng = np.random.default_rng(request.rng_key)
        fields = self._fields(request, seed=int(rng.integers(2**31)))
        run = _Run(self._only.server, lost_s=self._lost_s.pop(request.id, 0.0))
        while True:
            run.attempts += 1
            try:
                outcome = await self._attempt(request, fields, rng, run)
            except NoServerError as error:
                return self._given_up(request, Trouble(Fate.AGAIN, str(error)), run)
            if isinstance(outcome, Completion):
                return outcome
            await self._learn(outcome, run)
            if run.attempts >= self._config.attempts or not self._goes_on(outcome, run):
                return self._given_up(request, outcome, run)
            if self._router is None:
                await self._sleep(backoff_s(run.attempts, outcome.retry_after_s, rng))
            elif not outcome.unreached:  # else a breaker has opened, and another server may answer at once
                await self._sleep(backoff_s(run.attempts, None, rng))

    async def _learn(self, trouble: Trouble, run: _Run) -> None:
        """What further attempts and other requests must know of one that failed."""
        run.avoid.add(run.server.id)
        if trouble.fate is Fate.FATAL:
            run.refused.add(run.server.id)
        elif trouble.fate is Fate.ELSEWHERE:
            run.lost_s += run.latency_s
        if trouble.retry_after_s and self._router is None:
            await self._limiter.hold(self._name, trouble.retry_after_s)

    async def close(self) -> None:
        await self._attempts.close()

    def _goes_on(self, trouble: Trouble, run: _Run) -> bool:
        """Whether another attempt may give what this one did not."""
        if trouble.fate is Fate.FATAL:
            return self._router is not None and not self._refused_by_all(run)
        return trouble.fate is Fate.AGAIN or (trouble.fate is Fate.ELSEWHERE and run.lost_s < self._config.timeout_s)

    def _refused_by_all(self, run: _Run) -> bool:
        """Whether no server is left that may take what others refuse to everybody (a key, the model's name)."""
        if self._router is None:
            return True
        servers = self._router.servers
        return bool(servers) and all(server.id in run.refused for server in servers)

    def _given_up(self, request: GenerationRequest, trouble: Trouble, run: _Run) -> Completion:
        """The end of a request without an answer. Raises RunError where no other can have one either."""
        fate = trouble.fate
        own = self._router is not None and self._router.own
        if fate is Fate.FATAL and self._refused_by_all(run) and not (own and self._attempts.served):
            raise RunError(self._line(trouble.detail, run.server))
        if fate is Fate.AGAIN and self._router is None and not self._attempts.answered:
            raise RunError(self._line(f"{trouble.detail}; tried {run.attempts} times", run.server))
        unavailable = fate in (Fate.AGAIN, Fate.FATAL)
        if unavailable and run.lost_s and request.id:
            self._lost_s[request.id] = run.lost_s
        cost = Usage()
        if fate is Fate.CHARGED:
            cost = self.worst(request)
        elif fate is Fate.ELSEWHERE:
            cost = Usage(gpu_s=gpu_seconds(self._config, run.lost_s), estimated=True)
        usage = replace(cost, latency_s=run.latency_s, attempts=run.attempts)
        return Completion(None, self._name, request.operator, trouble.detail, usage=usage, unavailable=unavailable)

    async def _attempt(
        self, request: GenerationRequest, fields: dict[str, Any], rng: np.random.Generator, run: _Run
    ) -> Completion | Trouble:
        """One attempt under one lease of the limiter and one of a server. Raises NoServerError."""
        config = self._config
        reserved = expected_prompt(config, request) + cap_of(config, request)
        await self._limiter.lease(self._name, reserved)
        used = 0
        try:
            async with self._server(request, rng, frozenset(run.avoid)) as lease:
                used = reserved
                run.server = lease.server
                started = time.perf_counter()
                answer = await self._attempts.send(lease, request, fields, config.timeout_s - run.lost_s)
                run.latency_s = time.perf_counter() - started
            if isinstance(answer, Trouble):
                used = reserved if answer.fate is Fate.CHARGED else 0
                return answer
            completion = self._completion(request, read_reply(answer, self._attempts.key), run)
            used = completion.usage.tokens
            return completion
        finally:
            await self._limiter.done(self._name, reserved, used)

    def _server(
        self, request: GenerationRequest, rng: np.random.Generator, avoid: frozenset[str]
    ) -> AbstractAsyncContextManager[Lease]:
        if self._router is not None:
            return self._router.lease(prefix_key(request), rng, avoid)
        return nullcontext(self._only)

    def _fields(self, request: GenerationRequest, seed: int) -> dict[str, Any]:
        """What is sent beside model, messages and the bound of the answer."""
        config = self._config
        effort: str | None = config.reasoning_effort
        for _ in range(min(request.less_reasoning, 2)):
            effort = _LESS_EFFORT[effort] if effort else None
        fields = {
            "temperature": config.temperature if request.temperature is None else request.temperature,
            "top_p": config.top_p,
            "seed": seed,
            "reasoning_effort": effort,
            **extra_of(config, request),
        }
        return {key: value for key, value in fields.items() if value is not None}

    def _completion(self, request: GenerationRequest, reply: Reply, run: _Run) -> Completion:
        usage = usage_of(self._config, request, reply, run.latency_s)
        gpu_s = gpu_seconds(self._config, run.lost_s + run.latency_s)
        usage = replace(usage, attempts=run.attempts, gpu_s=gpu_s)
        text: str | None = reply.text
        detail, thinking_only = reply.problem, False
        if not detail and not reply.text.strip():
            text = None
            thinking_only = reply.cut_off or bool(reply.reasoning)
            stopped = "were spent without an answer" if reply.cut_off else "of thought ended without an answer"
            detail = f"all {usage.tokens_out} tokens {stopped}" if thinking_only else "the answer is empty"
        elif detail:
            text = None
        elif reply.cut_off:
            detail = f"cut off after {usage.tokens_out} tokens"
        return Completion(text, self._name, request.operator, detail, reply.reasoning, thinking_only, usage)

    def _line(self, detail: str, server: Server) -> str:
        return f"model {self._name!r} at {place_of(server.base_url)}: {detail}"


def _check(name: str, config: ModelConfig) -> None:
    """Raises UsageError for what the config's own checks cannot see."""
    for section, body in (("extra_body", config.extra_body), ("less_reasoning_body", config.less_reasoning_body)):
        if taken := sorted(set(_OURS) & body.keys()):
            raise UsageError(f"models.{name}.{section}: `{taken[0]}` is set from other fields; remove it")
        try:
            json.dumps(body, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise UsageError(f"models.{name}.{section} cannot be sent as JSON: {error}") from None
    url = config.base_url
    if url is not None and (place_of(url) is None or not url.isprintable()):
        raise UsageError(f"models.{name}.base_url is no address: expected such as http://127.0.0.1:8000/v1")
