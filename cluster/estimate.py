"""What a run would take, before it starts: an estimate from assumptions that stand in its line. Pure.

    seconds of an answer = (ANSWER_TOKENS + reasoning_tokens / 2) / TOKENS_PER_S
    candidates per second = requests at once / mean seconds of an answer, models drawn by their weights
    requests at once = least of islands x in flight, and what all servers take
    hours = candidates / candidates per second, GPU-hours = GPUs held x hours

Evaluation is taken to keep up. Candidates are what the first limit of the budget allows; dollars are not estimated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from adrs_ray.config import ModelConfig, RunConfig
from cluster.fit import Fit

TOKENS_PER_S = 60.0
"""Of one request while its replica is full: an assumption, not measured. The run's own rate is in its metrics."""
ANSWER_TOKENS = 2000.0
PROMPT_TOKENS = 5000.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """Roughly what comes out, and for how much."""

    candidates: float
    hours: float
    gpu_hours: float
    limit: str
    """The key of the budget that ends the run."""

    def describe(self) -> str:
        """One line that names what is assumed."""
        return (
            f"about {self.candidates:,.0f} candidates in {self.hours:.2g} h ({self.limit}), "
            f"{self.gpu_hours:.2g} GPU-hours (an estimate that assumes {TOKENS_PER_S:g} tokens/s per request, "
            f"answers of {ANSWER_TOKENS:g} tokens and half of reasoning_tokens, and evaluation that keeps up)"
        )


def estimate(config: RunConfig, found: Fit) -> Estimate | None:
    """For a run that asks models; None for one that asks none."""
    if config.generator.kind != "openai" or not config.models:
        return None
    shares = _shares(config.models)
    seconds = sum(share * _answer_tokens(config.models[name]) / TOKENS_PER_S for name, share in shares.items())
    tokens = PROMPT_TOKENS + sum(share * _answer_tokens(config.models[name]) for name, share in shares.items())
    gpu_s = sum(
        share * config.models[name].gpus * _answer_tokens(config.models[name]) for name, share in shares.items()
    )
    rate = _at_once(config, found) / seconds
    budget = config.budget
    limits = {"budget.max_candidates": float(budget.max_candidates)}
    if budget.max_wall_s is not None:
        limits["budget.max_wall_s"] = budget.max_wall_s * rate
    if budget.max_tokens is not None:
        limits["budget.max_tokens"] = budget.max_tokens / tokens
    if budget.max_gpu_s is not None and gpu_s:
        limits["budget.max_gpu_s"] = budget.max_gpu_s / (gpu_s / TOKENS_PER_S)
    limit = min(limits, key=lambda key: limits[key])
    hours = limits[limit] / rate / 3600
    return Estimate(limits[limit], hours, found.gpus_held * hours, limit)


def _shares(models: Mapping[str, ModelConfig]) -> dict[str, float]:
    total = sum(model.weight for model in models.values())
    return {name: model.weight / total for name, model in models.items()}


def _answer_tokens(model: ModelConfig) -> float:
    return min(ANSWER_TOKENS, model.max_tokens) + model.reasoning_tokens / 2


def _at_once(config: RunConfig, found: Fit) -> float:
    """Requests under way in all: what islands ask, bounded by what servers take."""
    asked = config.islands.count * config.islands.in_flight
    if any(config.engine_of(name) is None for name in config.models):
        return float(asked)
    replicas = sum(found.replicas.values())
    return float(min(asked, replicas * config.pool.max_in_flight if replicas else math.inf))
