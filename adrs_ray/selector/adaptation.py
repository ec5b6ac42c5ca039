"""Exploration from improvement (AdaEvolve, arXiv 2602.20133): explore until gains come, then exploit."""

from __future__ import annotations

import math

from adrs_ray.config import AdaptationConfig

_LARGEST_STEP = 10.0
"""One huge gain, such as the first program that works, must not silence exploration for the rest of the run."""


class ImprovementSignal:
    """How much an island improved lately, and how much it should explore therefore.

    Each candidate gives delta = max(0, gain over the best so far) / scale, at most 10, and

        G <- decay * G + (1 - decay) * delta ** 2        (an RMSprop-like second moment, 0 at first)
        exploration = low + (high - low) / (1 + sqrt(G))

    so that it is `high` while nothing improves and sinks towards `low` the larger and more frequent gains are: a single
    gain of one scale lowers it by a quarter of the way at decay 0.9. Without `enabled` it stays what it was given.
    """

    def __init__(self, config: AdaptationConfig, exploration: float) -> None:
        """`exploration` is that of an island that does not adapt."""
        self._config = config
        self._base = exploration
        self._signal = 0.0
        self._since_gain = 0

    @property
    def signal(self) -> float:
        """G, in squared scales."""
        return self._signal

    @property
    def since_gain(self) -> int:
        """Candidates since the last gain, or since the last paradigm shift."""
        return self._since_gain

    @property
    def exploration(self) -> float:
        """Share of parents to draw uniformly."""
        if not self._config.enabled:
            return self._base
        low, high = self._config.exploration
        return low + (high - low) / (1.0 + math.sqrt(self._signal))

    @property
    def shift_due(self) -> bool:
        """Whether gains have stayed away for `shift_after` candidates."""
        return self._config.shift_after is not None and self._since_gain >= self._config.shift_after

    def update(self, gain_over_best: float, scale: float) -> None:
        """A candidate was settled.

        `gain_over_best` is its score less the best before it, 0 or less where it failed or is no better. `scale` is
        what counts as a large step, in units of score, such as the standard deviation of the archive's scores; where
        it is 0 any gain counts as one step.
        """
        gained = gain_over_best > 0
        delta = 0.0
        if gained:
            delta = min(gain_over_best / scale, _LARGEST_STEP) if scale > 0 else 1.0
        self._signal = self._config.decay * self._signal + (1.0 - self._config.decay) * delta**2
        self._since_gain = 0 if gained else self._since_gain + 1

    def shifted(self) -> None:
        """A paradigm shift was asked for: the next one is due after `shift_after` further candidates without gain."""
        self._since_gain = 0
