"""The gate between two stages of a task: which candidates are worth a measurement on the dearer one. Pure.

What is asked of a cheap score x is P(dear >= median of the dear scores measured | x). It is estimated directly, by
isotonic regression of "reached the median" on the cheap score: nothing is assumed about scales, shape or noise, only
that a higher cheap score does not make a high dear one less likely, and scores enter the chance by their order alone.
A robust line with its residuals holds back and loses as much in simulated searches at the default chance, and loses
less where stages do not agree and the chance is 0.3 (`tests/benchmarks/gate.py`); but it assumes one form and one
spread for all scores. Candidates are held back by their cheap scores only, so what was measured may be fitted as it
is: choosing by x does not bias what is known given x. `docs/search.md` has the figures.
"""

from __future__ import annotations

import bisect
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median_low
from typing import Literal, TypeAlias

import numpy as np

from adrs_ray.config import CascadeConfig

WINDOW = 200
"""Latest pairs that are fitted: a search moves on, and so does what stands for a good score."""
PRIOR_HITS, PRIOR_TRIALS = 0.5, 1.0
"""Jeffreys' prior of a share: a single miss is no proof, five misses in a row put the chance below 0.1."""
By: TypeAlias = Literal["open", "chance", "random", "held"]
GATE_TAG = 0x67617465
"""Tells the generator of the random pass from those of other draws of the same decision."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What a gate says of one candidate."""

    by: By
    """`open`: too few pairs are known, or nothing is ever held back here (seeds). `chance`: likely enough. `random`:
    unlikely, let through all the same. `held`: held back."""
    chance: float = 1.0
    """To reach the median of the dear scores measured."""
    predicted: float | None = None
    """The dear score that such cheap scores had, on average; None while open."""

    @property
    def passes(self) -> bool:
        return self.by != "held"


OPEN = Decision("open")


class Gate:
    """Between one stage and the next, for one island; built by `learn` in the order of the journal."""

    def __init__(self, config: CascadeConfig) -> None:
        self._config = config
        self._pairs: deque[tuple[float, float]] = deque(maxlen=WINDOW)
        self._known = 0

    def learn(self, cheap: float, dear: float) -> None:
        """One more candidate with both scores. Raises ValueError for scores that are not finite."""
        if not (math.isfinite(cheap) and math.isfinite(dear)):
            raise ValueError(f"scores {cheap!r} and {dear!r}: both must be finite")
        self._pairs.append((cheap, dear))
        self._known += 1

    @property
    def is_open(self) -> bool:
        """Whether too few pairs are known to hold anything back."""
        return self._known < self._config.open_until

    def decide(self, cheap: float, rng: np.random.Generator) -> Decision:
        """Whether a candidate with this cheap score passes; `rng` is drawn from only where it would be held back.

        The chance never falls as `cheap` rises. Raises ValueError for a score that is not finite.
        """
        if not math.isfinite(cheap):
            raise ValueError(f"score {cheap!r} must be finite")
        if self.is_open:
            return OPEN
        chance, predicted = self.estimate(cheap)
        if chance >= self._config.chance:
            return Decision("chance", chance, predicted)
        by: By = "random" if rng.random() < self._config.random_pass else "held"
        return Decision(by, chance, predicted)

    def estimate(self, cheap: float) -> tuple[float, float]:
        """(chance to reach the median of the dear scores, mean dear score), both rising with `cheap`. Needs a pair."""
        dear = [pair[1] for pair in self._pairs]
        middle = median_low(dear)
        scale = max(map(abs, dear)) or 1.0  # sums of the largest floats would overflow
        scores = sorted({pair[0] for pair in self._pairs})
        position = {score: index for index, score in enumerate(scores)}
        trials, hits, total = np.zeros(len(scores)), np.zeros(len(scores)), np.zeros(len(scores))
        for known, reached in self._pairs:
            index = position[known]
            trials[index] += 1
            hits[index] += reached >= middle
            total[index] += reached / scale
        # A score between two known ones counts as the higher of them.
        at = min(bisect.bisect_left(scores, cheap), len(scores) - 1)
        mean = _isotonic(total, trials, at, 0.0, 0.0)
        return _isotonic(hits, trials, at, PRIOR_HITS, PRIOR_TRIALS), max(-1.0, min(1.0, mean)) * scale


def _isotonic(sums: np.ndarray, counts: np.ndarray, at: int, prior_sum: float, prior_count: float) -> float:
    """Isotonic least squares at one position: the largest, over starts up to it, of the smallest mean of a stretch from
    there to an end behind it. With a prior in every mean it still rises with the position."""
    upto = np.concatenate(([0.0], np.cumsum(sums)))
    counted = np.concatenate(([0.0], np.cumsum(counts)))
    ends = slice(at + 1, None)
    stretch_sums = upto[None, ends] - upto[: at + 1, None] + prior_sum
    stretch_counts = counted[None, ends] - counted[: at + 1, None] + prior_count
    return float((stretch_sums / stretch_counts).min(axis=1).max())


class Cascade:
    """The gates between the stages of a task, for one island; none for a task without stages."""

    def __init__(self, stages: Sequence[str], config: CascadeConfig) -> None:
        self._gates = {stage: Gate(config) for stage in stages[:-1]}
        self._following = dict(pairwise(stages))

    def learn(self, scores: Mapping[str, float]) -> None:
        """The scores of a candidate in the stages that it passed; those of two stages in a row are a pair."""
        for stage, gate in self._gates.items():
            following = self._following[stage]
            if stage in scores and following in scores:
                gate.learn(scores[stage], scores[following])

    def decide(self, stage: str, score: float, rng_key: tuple[int, int, int]) -> Decision:
        """What the gate behind a stage says; `rng_key` is (run seed, island, decision)."""
        number = list(self._gates).index(stage)
        return self._gates[stage].decide(score, np.random.default_rng((*rng_key, GATE_TAG + number)))
