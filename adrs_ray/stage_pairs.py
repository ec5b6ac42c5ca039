"""What a run's journal says of its stages: pairs of scores, and whether the champion's line exploits a cheap one."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import get_args

import numpy as np

from adrs_ray.cascade import By
from adrs_ray.config import CascadeConfig
from adrs_ray.fidelity import CALIBRATION, Fidelity, Growth, Pair, fidelity, growth_along
from adrs_ray.storage.views import Admitted, RunView

ALARM_CONFIDENCE = 0.99
"""Of the interval that the alarm heeds: it looks again at every new champion."""
MOST_STEPS = 200
"""Of the champion's line that the alarm looks at."""


def stages_of(view: RunView) -> tuple[str, ...]:
    """Stages of which there are scores, in their order; () for a task without stages."""
    return tuple(next(iter(view.admitted.values())).stages) if view.admitted else ()


def pairs_of(view: RunView, cheap: str, dear: str, config: CascadeConfig) -> list[Pair]:
    """Of all candidates that both stages measured, in the order of admission. O(candidates)."""
    weight = 1 / config.random_pass if config.random_pass else 1.0
    return [
        pair for admitted in view.admitted.values() if (pair := _pair(view, admitted, cheap, dear, weight)) is not None
    ]


def fidelities(view: RunView, config: CascadeConfig, seed: int = 0) -> tuple[Fidelity, ...]:
    """Of each cheap stage to the last one; () for a task without stages. `seed` draws the resamples."""
    *before, last = stages_of(view) or ("",)
    return tuple(
        fidelity(cheap, last, pairs_of(view, cheap, last, config), np.random.default_rng((seed, number)))
        for number, cheap in enumerate(before)
    )


def champion_growth(view: RunView) -> tuple[str, Growth] | None:
    """The cheap stage that the best candidate's line seems to exploit most, and by how much, as the alarm sees it.

    None without stages, and while the line is too short. Costs O(length of the line), whatever the run's.
    """
    stages = stages_of(view)
    if len(stages) < 2 or view.best is None:
        return None
    *before, last = stages
    found = []
    for cheap in before:
        first = [
            pair
            for admitted in islice(view.admitted.values(), CALIBRATION)
            if (pair := _pair(view, admitted, cheap, last, 1.0)) is not None
        ]
        growth = growth_along(_line(view, cheap, last), first, ALARM_CONFIDENCE)
        if growth is not None:
            found.append((cheap, growth))
    return max(found, key=lambda one: one[1].slope.low, default=None)


def _line(view: RunView, cheap: str, dear: str) -> list[Pair]:
    """The best candidate and its ancestors, the oldest first, as far as both stages measured them."""
    line: list[Pair] = []
    step = view.best.candidate if view.best is not None else None
    while step is not None and len(line) < MOST_STEPS:
        pair = _pair(view, view.admitted[step], cheap, dear, 1.0) if step in view.admitted else None
        if pair is None:
            break
        line.append(pair)
        step = pair.parent
    return line[::-1]


def _pair(view: RunView, admitted: Admitted, cheap: str, dear: str, weight: float) -> Pair | None:
    name, scores = admitted.candidate, admitted.stages
    if cheap not in scores or dear not in scores:
        return None
    lineage = view.lineage.get(name)
    parent = lineage.parents[0] if lineage is not None and lineage.parents else None
    return Pair(name, parent, scores[cheap], scores[dear], weight if name in view.random_passes else 1.0)


def gate_counts(view: RunView, stage: str) -> dict[str, int]:
    """What the gate behind a stage did: how many candidates each of open, chance, random and held was said of."""
    counts = view.gates.get(stage, Counter())
    return {by: counts[by] for by in get_args(By)}
