"""One case: a trace of generated loads, what is served under it, and what the candidate is told of that."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gpu_eval.batched_lpt import without_groups
from gpu_eval.communication import NETWORKS
from gpu_eval.cost_model import PHASES, constants
from gpu_eval.serving import Phase, ServingConfig
from gpu_eval.serving_brief import brief
from gpu_eval.serving_costs import ModelCosts
from gpu_eval.shapes import EXPERT_SIZES, Shape
from gpu_eval.workloads import REGIMES, LoadTrace, generate

Ints: TypeAlias = NDArray[np.int64]

DEVICE = "h100"
"""Whose constants (`gpu_eval/constants`) tell what steps take; also the network."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """How to make a case; equal scenarios make equal cases, in every process."""

    id: str
    regime: str
    shape: Shape
    phase: Phase
    windows: int
    """With the first one, which is shown and does not count."""
    window_steps: int
    seed: int
    size: str = "deepseek_v3"
    tokens_per_gpu: int = 0
    """0: those of the phase (`cost_model.PHASES`): 4096 in prefill, 128 in decode."""
    samples: int = 2
    layout: Literal["balanced", "plain"] = "balanced"
    """What lies there at first: balanced for the first window's loads, or experts in the order of their numbers."""
    change: Literal["none", "reversed", "silent", "one_hot"] = "none"
    """What is done to the generated loads: the order of experts is reversed half way; every third layer has no load,
    and all layers have none for a window; or one expert gets most tokens, another one in each quarter of the trace."""

    @property
    def config(self) -> ServingConfig:
        tokens = self.tokens_per_gpu or PHASES[self.phase].tokens_per_gpu
        return ServingConfig(self.shape, EXPERT_SIZES[self.size], self.phase, tokens, self.window_steps)

    @property
    def costs(self) -> ModelCosts:
        config = self.config
        return ModelCosts(constants(DEVICE, self.size, config.precision), NETWORKS[DEVICE], config)

    @property
    def digest(self) -> str:
        """Tells cases apart without telling what they are; the name is left out."""
        recipe = {**asdict(self), "id": ""}
        return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


@lru_cache(maxsize=16)
def trace_of(scenario: Scenario) -> LoadTrace:
    """The loads of all windows. Not to be changed: it is shared by all who ask."""
    shape = scenario.shape
    trace = generate(
        REGIMES[scenario.regime], shape.layers, shape.experts, scenario.windows, scenario.seed, scenario.samples
    )
    samples = _changed(trace.samples, scenario.change)
    samples.flags.writeable = False
    return LoadTrace(trace.name, trace.source, samples)


def _changed(samples: Ints, change: str) -> Ints:
    windows = len(samples)
    if change == "reversed":
        samples[windows // 2 :] = samples[windows // 2 :, :, :, ::-1].copy()
    elif change == "silent":
        samples[:, :, ::3] = 0
        samples[windows // 2] = 0
    elif change == "one_hot":
        experts = samples.shape[3]
        for window in range(windows):
            hot = (7 * (4 * window // windows) + 3) % experts
            samples[window, :, :, hot] = 2 * samples[window].sum(axis=-1)
    return samples


def initial_placement(scenario: Scenario) -> Ints:
    """What serves the first window [L, P]."""
    shape = scenario.shape
    if scenario.layout == "balanced":
        return without_groups(trace_of(scenario).samples[0].sum(axis=0), shape)
    return np.tile(np.arange(shape.slots) % shape.experts, (shape.layers, 1))


def told(scenario: Scenario) -> dict[str, Any]:
    """The `config` of a candidate: shape, steps, bytes, rates and constants, nothing of the loads."""
    return brief(scenario.config, scenario.costs, scenario.windows - 1, scenario.samples)
