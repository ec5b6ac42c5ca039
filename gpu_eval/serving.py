"""A trace of windows served under the placements that somebody decides: what it takes in wall time.

A window is `window_steps` steps of the model. When window t ends, its loads and the placement in force are shown, and
the answer serves window t + 1. Everything that is slow goes on beside the steps, as in vLLM, SGLang and TensorRT-LLM:

- A decision of d seconds delays the change: steps go on under the old placement until it is there. It adds no wall time
  of its own. Decisions of one trace are taken one after the other, never two at once.
- Then weights are copied in the background, layer by layer in order of their number, those first that need no copy. A
  layer goes over to its new placement with the first step after its copies are there.
- A second of copying lengthens the steps that it overlaps by `1 - overlap` seconds. A step is lengthened by
  `stall_cap` of itself at the most: what does not fit is spread over the steps that follow. So no change stalls a step
  for long, and a large one pays twice: by longer steps, and by the steps that still run under the old placement.
- A newer decision takes the place of what has not been copied yet; layers that went over stay.

Wall time is the sum of all steps, stalls included. The first window is served by what was there before, whoever
decides, and does not count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import TypeAlias

import numpy as np

from .invariants import check_phy2log
from .serving_rules import (
    Costs,
    Decision,
    Floats,
    Ints,
    Phase,
    ServingConfig,
    ServingResult,
    check_decision,
)
from .serving_timeline import Timeline
from .token_split import even_split
from .workloads import LoadTrace

__all__ = [
    "Costs",
    "Decide",
    "Decision",
    "Observation",
    "Phase",
    "ServingConfig",
    "ServingResult",
    "check_decision",
    "driven",
    "even_split",
    "play",
    "serve",
    "window_tokens",
]

Observation: TypeAlias = tuple[Ints, Ints]
"""Loads of the window that ended, int [S, L, E], and the placement in force, int [L, P]."""


def serve(
    trace: LoadTrace, config: ServingConfig, costs: Costs, initial: Ints, seed: int = 0
) -> Generator[Observation, Decision, ServingResult]:
    """Yields an observation after each window but the last, and is sent a Decision, checked (`check_decision`).

    `initial` [L, P] serves the first window. `seed` draws the tokens of steps (`window_tokens`).
    """
    check_phy2log(initial, config.shape)
    line = Timeline(config, costs, initial.copy())
    for window in range(trace.windows - 1):
        decision = yield trace.samples[window].copy(), line.placement.copy()
        line.serve(window_tokens(trace, window + 1, config, seed), decision)
    return line.result()


Decide: TypeAlias = Callable[[Ints, Ints], "Ints | tuple[Ints | None, Floats | None] | None"]
"""From a window's loads and the placement in force to a new placement, (placement, split), or None."""


def play(
    trace: LoadTrace,
    decide: Decide,
    config: ServingConfig,
    costs: Costs,
    initial: Ints,
    seed: int = 0,
    decision_s: float | None = None,
) -> ServingResult:
    """Serve a trace under what `decide` says, which is timed here; with `decision_s` each decision counts that much.

    Raises ValueError, one line that names the window, for a placement or split that is none.
    """

    def ask(loads: Ints, current: Ints) -> Decision:
        began = time.perf_counter()
        answer = decide(loads, current)
        seconds = time.perf_counter() - began if decision_s is None else decision_s
        placement, split = answer if isinstance(answer, tuple) else (answer, None)
        return check_decision(placement, split, current, config.shape, seconds)

    return driven(serve(trace, config, costs, initial, seed), ask)


def driven(
    game: Generator[Observation, Decision, ServingResult], ask: Callable[[Ints, Ints], Decision]
) -> ServingResult:
    """Play `serve` to its end under what `ask` decides. Its ValueError is raised again with the window in front."""
    window, decision = 0, None
    while True:
        try:
            observation = next(game) if decision is None else game.send(decision)
        except StopIteration as end:
            result: ServingResult = end.value
            return result
        try:
            decision = ask(*observation)
        except ValueError as error:
            raise ValueError(f"window {window}: {error}") from error
        window += 1


def window_tokens(trace: LoadTrace, window: int, config: ServingConfig, seed: int) -> Ints:
    """Tokens [S, L, E] of the steps of a window, one draw for each of its samples: step j has those of sample
    j * S // window_steps.

    Multinomial with the shares of the sample; a layer whose sample holds no token has none.
    """
    samples = trace.samples[window].astype(np.float64)
    totals = samples.sum(axis=2, keepdims=True)
    shares = np.divide(samples, totals, out=np.full_like(samples, 1.0 / trace.experts), where=totals > 0)
    rng = np.random.default_rng([seed, window])
    tokens: Ints = rng.multinomial(np.where(totals[..., 0] > 0, config.routed_tokens, 0), shares)
    return tokens
