"""What a case's wall time is held against: never changing anything, DeepSeek's rule, a clairvoyant, and the least.

All are computed by the cost model and are the same on every machine: the decision of DeepSeek's rule counts
`deepseek_decision_s`, whatever it takes here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from gpu_eval.batched_lpt import hierarchical, without_groups
from gpu_eval.serving import ServingResult, play, window_tokens
from gpu_eval.serving_costs import least_seconds
from gpu_eval.shapes import Shape

from .scenario import Ints, Scenario, initial_placement, trace_of

_VLLM_S, _VLLM_EXPERTS = 0.04, 58 * 256
"""What vLLM 0.33 takes for DeepSeek's rule at 58 x 256 to 288 (36.7 to 40 ms of CPU time)."""


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """Seconds of wall time for the windows of a case that count."""

    never: ServingResult
    deepseek_s: float
    oracle_s: float
    """Each window under LPT for its own loads, from its first step on, free of charge."""
    ideal_s: float
    """Proven: no placements and splits take less."""


@lru_cache(maxsize=64)
def never(scenario: Scenario) -> ServingResult:
    """The initial placement, to the end."""
    return play(
        trace_of(scenario),
        lambda *_: None,
        scenario.config,
        scenario.costs,
        initial_placement(scenario),
        decision_s=0.0,
    )


@lru_cache(maxsize=64)
def reference(scenario: Scenario) -> Reference:
    """All of a case."""
    return Reference(never(scenario), deepseek_every_window(scenario).seconds, *_clairvoyant(scenario))


def deepseek_every_window(scenario: Scenario) -> ServingResult:
    """DeepSeek's rule after every window, groups on nodes in prefill and anywhere in decode, as its README advises."""
    rule = hierarchical if scenario.phase == "prefill" else without_groups

    def decide(load_window: Ints, _: Ints) -> Ints:
        return rule(load_window.sum(axis=0), scenario.shape)

    return play(
        trace_of(scenario),
        decide,
        scenario.config,
        scenario.costs,
        initial_placement(scenario),
        decision_s=deepseek_decision_s(scenario.shape),
    )


def deepseek_decision_s(shape: Shape) -> float:
    """That of vLLM 0.33, in proportion to layers and experts."""
    return _VLLM_S * shape.layers * shape.experts / _VLLM_EXPERTS


def _clairvoyant(scenario: Scenario) -> tuple[float, float]:
    trace, config, costs = trace_of(scenario), scenario.config, scenario.costs
    of_step = np.arange(config.window_steps) * scenario.samples // config.window_steps
    oracle_s = ideal_s = 0.0
    for window, tokens in _tokens(scenario):
        placement = without_groups(trace.samples[window].sum(axis=0), scenario.shape)
        oracle_s += float(costs.layer_seconds(placement, None, tokens).sum(axis=1)[of_step].sum())
        least = least_seconds(tokens, costs.model, costs.network, scenario.shape)
        ideal_s += float(least.sum(axis=1)[of_step].sum())
    return oracle_s, ideal_s


def _tokens(scenario: Scenario) -> Iterator[tuple[int, Ints]]:
    trace = trace_of(scenario)
    for window in range(1, trace.windows):
        yield window, window_tokens(trace, window, scenario.config, 0)
