"""What a served trace is held against: never changing anything, DeepSeek's rule, a clairvoyant, and the least possible.

All are computed by the cost model and are the same on every machine: the decision of DeepSeek's rule counts
`deepseek_decision_s`, whatever it takes here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .batched_lpt import hierarchical, without_groups
from .serving import ServingResult, play, window_tokens
from .serving_costs import ModelCosts, least_seconds
from .serving_rules import ServingConfig
from .shapes import Shape
from .workloads import LoadTrace

Ints = NDArray[np.int64]
_VLLM_S, _VLLM_EXPERTS = 0.04, 58 * 256
"""What vLLM 0.33 takes for DeepSeek's rule at 58 x 256 to 288 (36.7 to 40 ms of CPU time)."""


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """Seconds of wall time for the windows that count."""

    never: ServingResult
    deepseek_s: float
    oracle_s: float
    """Each window under LPT for its own loads, from its first step on, free of charge."""
    ideal_s: float
    """Proven: no placements and splits take less."""


def reference(trace: LoadTrace, config: ServingConfig, costs: ModelCosts, initial: Ints) -> Reference:
    """All four; `initial` [L, P] serves the first window."""
    never = play(trace, lambda *_: None, config, costs, initial, decision_s=0.0)
    every = deepseek_every_window(trace, config, costs, initial)
    return Reference(never, every.seconds, *_clairvoyant(trace, config, costs))


def deepseek_every_window(trace: LoadTrace, config: ServingConfig, costs: ModelCosts, initial: Ints) -> ServingResult:
    """DeepSeek's rule after every window, groups on nodes in prefill and anywhere in decode, as its README advises."""
    rule = hierarchical if config.phase == "prefill" else without_groups

    def decide(load_window: Ints, _: Ints) -> Ints:
        return rule(load_window.sum(axis=0), config.shape)

    return play(trace, decide, config, costs, initial, decision_s=deepseek_decision_s(config.shape))


def deepseek_decision_s(shape: Shape) -> float:
    """That of vLLM 0.33, in proportion to layers and experts."""
    return _VLLM_S * shape.layers * shape.experts / _VLLM_EXPERTS


def _clairvoyant(trace: LoadTrace, config: ServingConfig, costs: ModelCosts) -> tuple[float, float]:
    """Seconds of the oracle, and the least possible."""
    of_step = np.arange(config.window_steps) * trace.samples.shape[1] // config.window_steps
    oracle_s = ideal_s = 0.0
    for window in range(1, trace.windows):
        tokens = window_tokens(trace, window, config, 0)
        placed = without_groups(trace.counts[window], config.shape)
        oracle_s += float(costs.layer_seconds(placed, None, tokens).sum(axis=1)[of_step].sum())
        least = least_seconds(tokens, costs.model, costs.network, config.shape)
        ideal_s += float(least.sum(axis=1)[of_step].sum())
    return oracle_s, ideal_s
