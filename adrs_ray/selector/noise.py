"""Noise-aware admission: who would take a place by a noisy score is measured again until it is certain or capped.

The idea is that of racing (Heidrich-Meisner & Igel 2009, "Hoeffding and Bernstein races for selecting policies"): a
single lucky measurement must not hold a cell, and no measurement is spent on those who would not get one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from adrs_ray.config import NoiseConfig
from adrs_ray.selector import Elite


def needs_another(elite: Elite, rivals: Sequence[Elite], config: NoiseConfig) -> bool:
    """Whether a candidate should be measured once more; `rivals` are those whose place it would take.

    Not when it is behind one of them, and not when it was measured `max_repeats` times; until `min_repeats` in any
    other case; then until its mean lies `z` standard errors of the difference above every rival's, which a single
    measurement cannot tell.
    """
    if elite.repeats >= config.max_repeats or any(elite.score <= rival.score for rival in rivals):
        return False
    if elite.repeats < config.min_repeats or (rivals and elite.repeats == 1):
        return True
    return any(elite.score - rival.score <= config.z * math.hypot(elite.error, rival.error) for rival in rivals)


def mean_and_error(scores: Sequence[float]) -> tuple[float, float]:
    """Mean and standard error of repeated measurements; the error of a single one is 0: not known."""
    if len(scores) == 1:
        return scores[0], 0.0
    return fmean(scores), stdev(scores) / math.sqrt(len(scores))
