"""Policies of placement over time that the bench compares: when, by which rule, and how tokens are split."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpu_eval.registry import BASELINES
from gpu_eval.results import Kind
from gpu_eval.serving_rules import Decision, ServingConfig, check_decision
from gpu_eval.shapes import Shape
from gpu_eval.token_split import water_filling

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

Answer = tuple[Ints | None, Floats | None]
"""A new placement [L, P] or None, and shares of tokens [L, P] or None."""
Ask = Callable[[Ints, Ints], Decision]
"""From a window's loads [S, L, E] and the placement in force [L, P] to a checked decision, timed."""


class Policy(Protocol):
    """Decides after each window of a trace."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> Kind: ...

    def deciding(self, config: ServingConfig, brief: dict[str, Any]) -> AbstractContextManager[Ask]:
        """Ready for one trace; `brief` is what a program is told of it (`serving_brief`).

        Raises ValueError, one line, when it cannot be had; so does what it gives, for an answer that is none.
        """
        ...


@dataclass(frozen=True, slots=True)
class RulePolicy:
    """One of ours, in this process. Its first answer, which compiles, is not the one that is timed."""

    name: str
    make: Callable[[ServingConfig], Callable[[Ints, Ints], Answer]]
    kind: Kind = "baseline"

    @contextmanager
    def deciding(self, config: ServingConfig, brief: dict[str, Any]) -> Iterator[Ask]:
        decide = self.make(config)
        warm = False

        def ask(load_window: Ints, placement: Ints) -> Decision:
            nonlocal warm
            if not warm:
                decide(load_window, placement)
                warm = True
            began = time.perf_counter()
            placed, split = decide(load_window, placement)
            seconds = time.perf_counter() - began
            return check_decision(placed, split, placement, config.shape, seconds)

        yield ask


def _never(config: ServingConfig) -> Callable[[Ints, Ints], Answer]:
    return lambda load_window, placement: (None, None)


def _every(name: str, split: bool = False) -> Callable[[ServingConfig], Callable[[Ints, Ints], Answer]]:
    """The rule of baseline `name` after every window; groups stay on nodes in prefill, as DeepSeek's README advises."""

    def make(config: ServingConfig) -> Callable[[Ints, Ints], Answer]:
        module, asked = BASELINES[name].load(), _asked(config, BASELINES[name].grouped)

        def decide(load_window: Ints, placement: Ints) -> Answer:
            counts = load_window.sum(axis=0)
            weight = module.torch.from_numpy(counts)
            placed = module.rebalance_experts(weight, asked.slots, asked.groups, asked.nodes, asked.gpus)[0].numpy()
            return placed, water_filling(placed, counts, asked.gpus) if split else None

        return decide

    return make


def _incremental(moves: int, split: bool = False) -> Callable[[ServingConfig], Callable[[Ints, Ints], Answer]]:
    """At most `moves` slots of each layer take another expert after every window."""

    def make(config: ServingConfig) -> Callable[[Ints, Ints], Answer]:
        module, gpus = BASELINES["incremental"].load(), config.shape.gpus

        def decide(load_window: Ints, placement: Ints) -> Answer:
            counts = load_window.sum(axis=0)
            weight, before = (module.torch.from_numpy(each) for each in (counts, placement))
            placed = module.rebalance(weight, before, 1, 1, gpus, moves)[0].numpy()
            return placed, water_filling(placed, counts, gpus) if split else None

        return decide

    return make


def _asked(config: ServingConfig, grouped: bool) -> Shape:
    shape = config.shape
    if grouped and config.phase == "prefill" and shape.local_groups:
        return shape
    return shape.ungrouped


POLICIES: dict[str, RulePolicy] = {
    policy.name: policy
    for policy in (
        RulePolicy("never", _never),
        RulePolicy("deepseek_every", _every("heap_lpt")),
        RulePolicy("global_every", _every("global_lpt")),
        RulePolicy("swaps_every", _every("global_swaps")),
        RulePolicy("swaps_every_split", _every("global_swaps", split=True)),
        RulePolicy("incremental_8", _incremental(8)),
        RulePolicy("incremental_16", _incremental(16)),
        RulePolicy("incremental_64", _incremental(64)),
        RulePolicy("incremental_16_split", _incremental(16, split=True)),
    )
}
"""By name. `deepseek_every` is DeepSeek's rule by heaps: the same placements, in a time of today."""
