"""Parent rules: which elite becomes a parent, by exploration, exploitation or elitism."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adrs_ray.config import SelectorConfig
from adrs_ray.selector import Elite


def choose_parent(elites: Sequence[Elite], config: SelectorConfig, rng: np.random.Generator) -> Elite:
    """One parent from a non-empty archive.

    With probability `exploration` any elite, all cells alike; with `exploitation` by rank of score, the chance falling
    linearly from best to worst (linear ranking, Baker 1985); otherwise the best one.
    """
    draw = rng.random()
    if draw < config.exploration:
        return elites[int(rng.integers(len(elites)))]
    ranked = sorted(elites, key=lambda elite: -elite.score)
    if draw < config.exploration + config.exploitation:
        weights = np.arange(len(ranked), 0, -1, dtype=float)
        return ranked[int(rng.choice(len(ranked), p=weights / weights.sum()))]
    return ranked[0]


def choose_partner(elites: Sequence[Elite], parent: Elite, rng: np.random.Generator) -> Elite | None:
    """A second parent for crossover, any other elite with equal chance; None when there is no other."""
    others = [elite for elite in elites if elite.candidate != parent.candidate]
    return others[int(rng.integers(len(others)))] if others else None
