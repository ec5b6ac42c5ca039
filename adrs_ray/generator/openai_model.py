"""A language model behind any OpenAI-compatible server: vLLM, Ray Serve LLM, hosted ones.

Chat completions, not streamed: nobody reads along, and one body is either whole or lost. What a request can cost at
most is reserved by the caller (`worst`), and that pays for one charged attempt. So only what was certainly not charged
is tried again in here; an attempt that was sent and never answered ends the request at its worst cost.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from adrs_ray.config import ModelConfig
from adrs_ray.errors import RunError, UsageError
from adrs_ray.generator import Completion, GenerationRequest, Usage
from adrs_ray.generator.connection import http_library, make_client
from adrs_ray.generator.limits import Limiter
from adrs_ray.generator.reply import Reply, clean, one_line, read_reply
from adrs_ray.generator.retry import Fate, backoff_s, fate_of_lost_connection, fate_of_status, retry_after_s

_TOKENS_PER_REQUEST = 256
_TOKENS_PER_MESSAGE = 32
"""More than what chat templates add: role markers, a system message of the model's own."""
_OURS = ("model", "messages", "stream", "stream_options", "n", "best_of", "max_tokens", "max_completion_tokens")
"""Fields of a request on which the bound of its cost rests."""
_LESS_EFFORT = {"high": "medium", "medium": "low", "low": "low"}


@dataclass(frozen=True, slots=True)
class _Trouble:
    """Why an attempt has no answer; `detail` is one line without the key."""

    fate: Fate
    detail: str
    retry_after_s: float | None = None


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
    ) -> None:
        self._name = name
        self._config = config
        self._limiter = limiter
        self._sleep = sleep
        _check(name, config)
        self._key = _read_key(name, config)
        self._client: Any = None
        self._answered = False
        """Whether the server ever gave an answer: one that never did is a wrong address."""
        self._cap_field = "max_tokens"

    @property
    def name(self) -> str:
        return self._name

    def worst(self, request: GenerationRequest) -> Usage:
        """Tokens of the prompt are at most its bytes, those of the answer what the request allows."""
        config = self._config
        prompt = sum(len(clean(message.content).encode()) for message in request.messages)
        prompt += len(json.dumps(self._extra(request)))  # tools and schemas are told to the model, too
        usage = Usage(
            tokens_in=prompt + _TOKENS_PER_REQUEST + _TOKENS_PER_MESSAGE * len(request.messages),
            tokens_out=self._cap(request),
            gpu_s=config.timeout_s * config.gpus,
            latency_s=config.timeout_s,
            estimated=True,
        )
        dearest = max(config.usd_per_mtok_in or 0.0, config.usd_per_mtok_cached or 0.0)
        usd = (usage.tokens_in * dearest + usage.tokens_out * (config.usd_per_mtok_out or 0.0)) / 1e6
        return replace(usage, usd=usd)

    async def complete(self, request: GenerationRequest) -> Completion:
        rng = np.random.default_rng(request.rng_key)
        fields = self._fields(request, seed=int(rng.integers(2**31)))
        for attempt in range(1, self._config.attempts + 1):
            outcome, latency_s = await self._attempt(request, fields)
            if isinstance(outcome, Completion):
                return replace(outcome, usage=replace(outcome.usage, attempts=attempt))
            trouble = outcome
            if trouble.retry_after_s:
                await self._limiter.hold(self._name, trouble.retry_after_s)
            if trouble.fate is not Fate.AGAIN:
                break
            if attempt < self._config.attempts:
                await self._sleep(backoff_s(attempt, trouble.retry_after_s, rng))
        if trouble.fate is Fate.FATAL:
            raise RunError(self._line(trouble.detail))
        if trouble.fate is Fate.AGAIN and not self._answered:
            raise RunError(self._line(f"{trouble.detail}; tried {attempt} times"))
        cost = self.worst(request) if trouble.fate is Fate.CHARGED else Usage()
        usage = replace(cost, latency_s=latency_s, attempts=attempt)
        unavailable = trouble.fate is Fate.AGAIN
        return Completion(None, self._name, request.operator, trouble.detail, usage=usage, unavailable=unavailable)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _attempt(self, request: GenerationRequest, fields: dict[str, Any]) -> tuple[Completion | _Trouble, float]:
        """One attempt under one lease, and the seconds it took."""
        reserved = self._expected_prompt(request) + self._cap(request)
        await self._limiter.lease(self._name, reserved)
        used = reserved
        try:
            started = time.perf_counter()
            answer = await self._send(request, fields)
            latency_s = time.perf_counter() - started
            if isinstance(answer, _Trouble):
                used = reserved if answer.fate is Fate.CHARGED else 0
                return answer, latency_s
            completion = self._completion(request, read_reply(answer, self._key), latency_s)
            used = completion.usage.tokens
            return completion, latency_s
        finally:
            await self._limiter.done(self._name, reserved, used)

    async def _send(self, request: GenerationRequest, fields: dict[str, Any]) -> bytes | _Trouble:
        """The body of a successful answer, or what went wrong."""
        import openai

        messages = [{"role": m.role, "content": clean(m.content)} for m in request.messages]
        cap_field = self._cap_field
        body = {"model": self._config.model, "messages": messages, cap_field: self._cap(request), **fields}
        client, response_type = self._connected()
        try:
            async with asyncio.timeout(self._config.timeout_s):
                # not `chat.completions.create`: its check of types takes a quarter of the CPU of a request
                response = await client.post("/chat/completions", cast_to=response_type, body=body)
        except TimeoutError:
            return _Trouble(Fate.CHARGED, f"timed out after {self._config.timeout_s:g} s without an answer")
        except openai.APIStatusError as error:
            self._answered = True
            return self._status_trouble(error, cap_field)
        except openai.APIConnectionError as error:
            cause = error.__cause__
            fate = fate_of_lost_connection(cause)
            self._answered |= fate is Fate.CHARGED
            what = "cannot connect" if fate is Fate.AGAIN else "the connection was lost before the answer was whole"
            return _Trouble(fate, self._told(f"{what}: {type(cause).__name__}: {cause}"))
        self._answered = True
        content: bytes = response.content
        return content

    def _status_trouble(self, error: Any, sent_cap: str) -> _Trouble:
        """What an HTTP status that is no success means; `error` is the client's APIStatusError.

        `sent_cap` is the name under which the bound of the answer was sent.
        """
        status: int = error.status_code
        message = error.body.get("message") if isinstance(error.body, dict) else None
        detail = self._told(f"HTTP {status}: {message if isinstance(message, str) else error.message}")
        fate = fate_of_status(status, error.code)
        if status in (401, 403):
            key = f"the key in {self._config.api_key_env}" if self._config.api_key_env else "requests without a key"
            detail = f"{key} is refused, {detail}"
        elif status in (404, 405) or 300 <= status < 400:
            detail = f"no model {self._config.model!r} there, or base_url is wrong, {detail}"
        elif status == 400 and sent_cap == "max_tokens" and "max_completion_tokens" in error.message:
            self._cap_field = "max_completion_tokens"  # newer name of the same bound, which some servers insist on
            fate = Fate.AGAIN
        header = error.response.headers.get("retry-after")
        return _Trouble(fate, detail, retry_after_s(header, datetime.now(UTC)))

    def _connected(self) -> tuple[Any, Any]:
        """The client, and the type of the HTTP library's responses."""
        http = http_library()
        if self._client is None:
            self._client = make_client(http, self._config, self._key)
        return self._client, http.Response

    def _cap(self, request: GenerationRequest) -> int:
        """Tokens that the answer may have, reasoning included."""
        return self._config.max_tokens + (self._config.reasoning_tokens >> min(request.less_reasoning, 64))

    def _extra(self, request: GenerationRequest) -> dict[str, Any]:
        less = self._config.less_reasoning_body if request.less_reasoning else {}
        return {**self._config.extra_body, **less}

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
            **self._extra(request),
        }
        return {key: value for key, value in fields.items() if value is not None}

    def _expected_prompt(self, request: GenerationRequest) -> int:
        chars = sum(len(message.content) for message in request.messages)
        return math.ceil(chars / self._config.chars_per_token)

    def _completion(self, request: GenerationRequest, reply: Reply, latency_s: float) -> Completion:
        usage = self._usage(request, reply, latency_s)
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

    def _usage(self, request: GenerationRequest, reply: Reply, latency_s: float) -> Usage:
        """As the server counted; where it did not, from the length of the texts, or the worst without any."""
        config, worst = self._config, self.worst(request)
        tokens_in, tokens_out = reply.tokens_in, reply.tokens_out
        if tokens_in is None:
            tokens_in = worst.tokens_in if reply.problem else min(self._expected_prompt(request), worst.tokens_in)
        if tokens_out is None:
            written = math.ceil((len(reply.text) + len(reply.reasoning)) / config.chars_per_token)
            tokens_out = worst.tokens_out if reply.problem or reply.cut_off else min(written, worst.tokens_out)
        cached = min(reply.tokens_cached, tokens_in)
        price_in = config.usd_per_mtok_in or 0.0
        price_cached = price_in if config.usd_per_mtok_cached is None else config.usd_per_mtok_cached
        usd = (tokens_in - cached) * price_in + cached * price_cached + tokens_out * (config.usd_per_mtok_out or 0.0)
        return Usage(
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            tokens_cached=cached,
            tokens_reasoning=min(reply.tokens_reasoning, tokens_out),
            usd=usd / 1e6,
            gpu_s=min(latency_s, config.timeout_s) * config.gpus,
            latency_s=latency_s,
            estimated=reply.tokens_in is None or reply.tokens_out is None,
        )

    def _told(self, text: str) -> str:
        """What a server said, as one line without the key."""
        return one_line(text, self._key)

    def _line(self, detail: str) -> str:
        return f"model {self._name!r} at {_place(self._config.base_url)}: {detail}"


def _check(name: str, config: ModelConfig) -> None:
    """Raises UsageError for what the config's own checks cannot see."""
    for section, body in (("extra_body", config.extra_body), ("less_reasoning_body", config.less_reasoning_body)):
        if taken := sorted(set(_OURS) & body.keys()):
            raise UsageError(f"models.{name}.{section}: `{taken[0]}` is set from other fields; remove it")
        try:
            json.dumps(body, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise UsageError(f"models.{name}.{section} cannot be sent as JSON: {error}") from None
    if _place(config.base_url) is None or not config.base_url.isprintable():
        raise UsageError(f"models.{name}.base_url is no address: expected such as http://127.0.0.1:8000/v1")


def _read_key(name: str, config: ModelConfig) -> str | None:
    if config.api_key_env is None:
        return None
    key = os.environ.get(config.api_key_env, "").strip()
    if not key:
        raise UsageError(f"models.{name}: its key is read from the environment variable {config.api_key_env}: set it")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError(
            f"models.{name}: the environment variable {config.api_key_env} holds no key: one has visible ASCII "
            "characters only"
        )
    return key


def _place(url: str) -> str | None:
    """Host and port of a URL, without what may be secret in it; None when it has none."""
    try:
        parts = urlsplit(url)
        return f"{parts.hostname}:{parts.port}" if parts.port and parts.hostname else parts.hostname
    except ValueError:
        return None
