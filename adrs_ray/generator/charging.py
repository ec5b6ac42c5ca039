"""What a request to a model may cost, and what it did cost.

Pure. The bound rests on bytes: a token of a prompt has at least one.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

from adrs_ray.config import ModelConfig
from adrs_ray.generator import GenerationRequest, Usage
from adrs_ray.generator.reply import Reply, clean

_TOKENS_PER_REQUEST = 256
_TOKENS_PER_MESSAGE = 32
"""More than what chat templates add: role markers, a system message of the model's own."""


def cap_of(config: ModelConfig, request: GenerationRequest) -> int:
    """Tokens that the answer may have, reasoning included."""
    return config.max_tokens + (config.reasoning_tokens >> min(request.less_reasoning, 64))


def extra_of(config: ModelConfig, request: GenerationRequest) -> dict[str, Any]:
    """Fields that the config adds to the request's body."""
    less = config.less_reasoning_body if request.less_reasoning else {}
    return {**config.extra_body, **less}


def expected_prompt(config: ModelConfig, request: GenerationRequest) -> int:
    """Tokens of the prompt, estimated from its length."""
    chars = sum(len(message.content) for message in request.messages)
    return math.ceil(chars / config.chars_per_token)


def worst_of(config: ModelConfig, request: GenerationRequest) -> Usage:
    """The most that a request can cost: tokens of the prompt are at most its bytes, those of the answer what the
    request allows."""
    prompt = sum(len(clean(message.content).encode()) for message in request.messages)
    prompt += len(json.dumps(extra_of(config, request)))  # tools and schemas are told to the model, too
    usage = Usage(
        tokens_in=prompt + _TOKENS_PER_REQUEST + _TOKENS_PER_MESSAGE * len(request.messages),
        tokens_out=cap_of(config, request),
        gpu_s=config.timeout_s * config.gpus,
        latency_s=config.timeout_s,
        estimated=True,
    )
    dearest = max(config.usd_per_mtok_in or 0.0, config.usd_per_mtok_cached or 0.0)
    usd = (usage.tokens_in * dearest + usage.tokens_out * (config.usd_per_mtok_out or 0.0)) / 1e6
    return replace(usage, usd=usd)


def gpu_seconds(config: ModelConfig, seconds: float) -> float:
    """GPU-seconds of a request that was so long at servers, attempts that were lost included; never above its worst."""
    return min(seconds, config.timeout_s) * config.gpus


def usage_of(config: ModelConfig, request: GenerationRequest, reply: Reply, latency_s: float) -> Usage:
    """As the server counted; where it did not, from the length of the texts, or the worst without any."""
    worst = worst_of(config, request)
    tokens_in, tokens_out = reply.tokens_in, reply.tokens_out
    if tokens_in is None:
        expected = min(expected_prompt(config, request), worst.tokens_in)
        tokens_in = worst.tokens_in if reply.problem else expected
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
        gpu_s=gpu_seconds(config, latency_s),
        latency_s=latency_s,
        estimated=reply.tokens_in is None or reply.tokens_out is None,
    )
