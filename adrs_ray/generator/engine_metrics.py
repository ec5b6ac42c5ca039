"""What a vLLM server says about itself at `/metrics`, read from Prometheus' text format.

Reading is pure and never raises for what a text contains: lines that are none are passed over, and what is missing is
None. Names come with and without vLLM's prefix (`vllm:`; `ray_vllm_` and the like where Ray exports them); several
engines behind one server are summed.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from adrs_ray.generator.connection import Connection, NoAnswerError

_LINE = re.compile(
    r'(?P<name>[A-Za-z_:][A-Za-z0-9_:]*+)(?:\{(?P<labels>(?:[^"}]|"(?:[^"\\]|\\.)*+")*+)\})?[ \t]++(?P<value>[^ \t]++)'
)
_LABEL = re.compile(r'([A-Za-z_][A-Za-z0-9_]*+)="((?:[^"\\]|\\.)*+)"')
_PREFIXES = ("vllm:", "", "vllm_", "ray_vllm:", "ray_vllm_")
_MOST_LINES = 100_000


@dataclass(frozen=True, slots=True)
class EngineMetrics:
    """One reading; counters are those since the engine started. None where the server says nothing."""

    running: float | None = None
    """Requests in the batch."""
    waiting: float | None = None
    prompt_tokens: float | None = None
    generation_tokens: float | None = None
    cache_hits: float | None = None
    """Tokens of prompts that the prefix cache had."""
    cache_queries: float | None = None
    """Tokens of prompts that were looked up there."""
    cache_usage: float | None = None
    """Share of the KV cache that is in use, of the fullest engine."""
    sleeping: bool | None = None

    @property
    def load(self) -> float | None:
        """Requests that it runs or lets wait."""
        known = [count for count in (self.running, self.waiting) if count is not None]
        return sum(known) if known else None


@dataclass(frozen=True, slots=True)
class EngineRates:
    """What happened between two readings; None where either says nothing, or the engine was started again between."""

    prompt_tokens_per_s: float | None = None
    generation_tokens_per_s: float | None = None
    cache_hit_rate: float | None = None
    """Of the tokens looked up; None also when there were none."""


def parse_metrics(text: str) -> EngineMetrics:
    """The metrics in a text of any content."""
    samples: dict[str, list[tuple[str, float]]] = {}
    for name, labels, value in _samples(text):
        samples.setdefault(name, []).append((labels, value))

    def values(*names: str) -> list[float]:
        """Of the first of these that is there, under any prefix: older names would count the same things again."""
        for name in names:
            for prefix in _PREFIXES:
                for suffix in ("", "_total"):
                    if found := samples.get(f"{prefix}{name}{suffix}"):
                        return [value for _, value in found]
        return []

    def total(*names: str) -> float | None:
        found = values(*names)
        added = sum(found) if found else None
        return added if added is not None and added < math.inf else None

    usage = values("kv_cache_usage_perc", "gpu_cache_usage_perc")
    return EngineMetrics(
        running=total("num_requests_running"),
        waiting=total("num_requests_waiting"),
        prompt_tokens=total("prompt_tokens"),
        generation_tokens=total("generation_tokens"),
        cache_hits=total("prefix_cache_hits", "gpu_prefix_cache_hits"),
        cache_queries=total("prefix_cache_queries", "gpu_prefix_cache_queries"),
        cache_usage=max(usage) if usage else None,
        sleeping=_sleeping(samples),
    )


def rates(before: EngineMetrics, after: EngineMetrics, elapsed_s: float) -> EngineRates:
    """What happened in the `elapsed_s` seconds between two readings of one engine."""
    hits, queries = _grown(before.cache_hits, after.cache_hits), _grown(before.cache_queries, after.cache_queries)
    prompt = _grown(before.prompt_tokens, after.prompt_tokens)
    generation = _grown(before.generation_tokens, after.generation_tokens)
    timed = elapsed_s > 0
    return EngineRates(
        prompt_tokens_per_s=prompt / elapsed_s if timed and prompt is not None else None,
        generation_tokens_per_s=generation / elapsed_s if timed and generation is not None else None,
        cache_hit_rate=min(1.0, hits / queries) if hits is not None and queries else None,
    )


async def read_metrics(base_url: str, key: str | None = None, timeout_s: float = 2.0) -> EngineMetrics:
    """The metrics of the server at `base_url`, with or without its `/v1`; all None when it gives none in time."""
    connection = Connection(base_url.rstrip("/").removesuffix("/v1"), key, direct=key is not None)
    try:
        return await metrics_of(connection, timeout_s)
    finally:
        await connection.close()


async def metrics_of(connection: Connection, timeout_s: float) -> EngineMetrics:
    """As `read_metrics`, over a connection to the server's root."""
    try:
        async with asyncio.timeout(timeout_s):
            answer = await connection.get("/metrics")
    except (TimeoutError, NoAnswerError):
        return EngineMetrics()
    if answer.status != 200:
        return EngineMetrics()
    return parse_metrics(answer.content.decode("utf-8", "replace"))


def _samples(text: str) -> Iterator[tuple[str, str, float]]:
    """(name, labels, value) of every sample with a finite value that is no less than 0."""
    for line in text.split("\n", _MOST_LINES)[:_MOST_LINES]:
        match = _LINE.match(line.lstrip())
        if match is None:
            continue
        try:
            value = float(match["value"])
        except ValueError:
            continue
        if 0 <= value < math.inf:
            yield match["name"], match["labels"] or "", value


def _sleeping(samples: dict[str, list[tuple[str, float]]]) -> bool | None:
    """Whether any engine is not awake; the state `awake` is 1 or 0."""
    for prefix in _PREFIXES:
        found = samples.get(f"{prefix}engine_sleep_state", [])
        awake = [value for labels, value in found if dict(_LABEL.findall(labels)).get("sleep_state") == "awake"]
        if awake:
            return min(awake) < 1
    return None


def _grown(before: float | None, after: float | None) -> float | None:
    return after - before if before is not None and after is not None and after >= before else None
