"""How faithful a cheap stage is to the last one: agreement, bias, what it costs to trust it, and whether a search has
begun to exploit it. Pure.

Candidates that a gate would have held back and let through at random stand for those that it did hold back: each
counts 1 / random_pass times in agreement and bias, so that what is said holds for all candidates that came to the
gate, not for those alone that it liked.

- Agreement: Spearman's rank correlation, with a percentile bootstrap interval.
- Bias: mean of dear - cheap where both stages score on one scale, that is where the line through the first pairs has a
  slope between 1/2 and 2; else mean of dear - line(cheap) over the pairs behind those that the line was fitted to.
  Negative: the cheap stage flatters.
- Regret: best dear score, less the dear score of the candidate that the cheap stage likes best.
- Growth: by how much cheap - dear (in units of the dear score) grows per step along the line of ancestors of a good
  candidate. Steps, not levels, are averaged: their mean has a valid t interval whether residuals are independent or
  handed down from parent to child, and as a line ends in the candidate that was chosen for its dear score, chance alone
  lets it fall rather than grow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

CALIBRATION = 30
"""First pairs that the line between the scales is fitted to; of fewer than twice as many, half."""
LEAST_PAIRS = 8
"""Below which nothing is said."""
RESAMPLES = 1000
MOST_PAIRS = 2000
"""Latest pairs that are looked at."""
LEAST_STEPS = 5
"""Of a line of ancestors, for a growth."""
CONFIDENCE = 0.95
LEAST_SHARE = 0.1
"""Of a cheap score's rise that must be flattery, to be worth a word."""
SAME_SCALE = (0.5, 2.0)
"""Slopes of the line for which both stages are taken to score on one scale."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A candidate that both stages measured."""

    candidate: str
    parent: str | None
    """The first one; None for seeds."""
    cheap: float
    dear: float
    weight: float = 1.0
    """Candidates that it stands for."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its interval at 95 %."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Growth:
    """Of what the cheap stage flatters, cheap - dear, along a candidate's line of ancestors."""

    candidate: str
    """Where the line ends."""
    steps: int
    slope: Interval
    """Per step, in units of the dear score."""
    rise: float
    """Of the cheap score from one end of the line to the other, in the same units."""

    @property
    def is_exploited(self) -> bool:
        """Whether it grows beyond its interval, and takes a tenth of the cheap score's rise."""
        return self.slope.low > 0 and self.slope.value * self.steps >= LEAST_SHARE * self.rise


@dataclass(frozen=True, slots=True)
class Fidelity:
    """Of one cheap stage to the last one."""

    cheap: str
    dear: str
    pairs: int
    random: int
    """Pairs of candidates that the gate let through at random."""
    spearman: Interval | None
    """None below 8 pairs, as all that follows."""
    bias: Interval | None
    one_scale: bool
    """What `bias` is: dear - cheap, or dear - line(cheap)."""
    regret: float | None
    growths: tuple[Growth, ...]
    """Of the best candidates' lines, the best one's first; lines shorter than 5 steps are left out."""

    @property
    def text(self) -> str:
        """One paragraph."""
        if self.spearman is None or self.bias is None or self.regret is None:
            return f"{self.cheap} against {self.dear}: {self.pairs} pairs, too few to say anything."
        what = f"{self.dear} - {self.cheap}" if self.one_scale else f"{self.dear} - line({self.cheap}), scales differ"
        text = (
            f"{self.cheap} against {self.dear}, {self.pairs} pairs, {self.random} of them let through at random: "
            f"Spearman {_shown(self.spearman)}; bias ({what}) {_shown(self.bias)}; picking by {self.cheap} costs "
            f"{self.regret:.4g}."
        )
        for growth in self.growths[:1]:
            verdict = "grows: the search exploits the simulator" if growth.is_exploited else "no growth beyond chance"
            text += (
                f" Along the {growth.steps} steps to {growth.candidate} what {self.cheap} flatters changes by "
                f"{_shown(growth.slope)} a step: {verdict}."
            )
        return text


def _shown(figure: Interval) -> str:
    return f"{figure.value:.3g} [{figure.low:.3g}, {figure.high:.3g}]"


@dataclass(frozen=True, slots=True)
class Line:
    """From cheap scores to dear ones."""

    slope: float
    offset: float


def fidelity(cheap: str, dear: str, pairs: Sequence[Pair], rng: np.random.Generator, lines: int = 5) -> Fidelity:
    """Of the stage `cheap` to the stage `dear`. `pairs` in the order in which they were measured; the latest 2,000
    count. `rng` draws the resamples; `lines` is how many lines of ancestors are followed."""
    pairs = pairs[-MOST_PAIRS:]
    random = sum(pair.weight > 1 for pair in pairs)
    if len(pairs) < LEAST_PAIRS:
        return Fidelity(cheap, dear, len(pairs), random, None, None, True, None, ())
    scale = _scale(pairs)
    xs, ys = (np.array([getattr(pair, name) / scale for pair in pairs]) for name in ("cheap", "dear"))
    weights = np.array([pair.weight for pair in pairs])
    fitted = min(CALIBRATION, len(pairs) // 2)
    line = fit(xs[:fitted], ys[:fitted])
    one_scale = _one_scale(line)
    rest = slice(0, None) if one_scale else slice(fitted, None)
    residuals = (ys - (xs if one_scale else line.offset + line.slope * xs))[rest]
    draws = rng.integers(0, len(pairs), (RESAMPLES, len(pairs)))
    correlation = _interval(
        weighted_spearman(xs, ys, weights), [weighted_spearman(xs[d], ys[d], weights[d]) for d in draws]
    )
    draws = rng.integers(0, len(residuals), (RESAMPLES, len(residuals)))
    among = weights[rest]
    means = (residuals[draws] * among[draws]).sum(axis=1) / among[draws].sum(axis=1)
    bias = _interval(float((residuals * among).sum() / among.sum()), means)
    best_cheap = xs.max()
    return Fidelity(
        cheap,
        dear,
        len(pairs),
        random,
        correlation,
        Interval(*(_scaled(value, scale) for value in (bias.value, bias.low, bias.high))),
        one_scale,
        _scaled(float(ys.max() - ys[xs == best_cheap].mean()), scale),
        growths(pairs, lines),
    )


def growths(pairs: Sequence[Pair], lines: int) -> tuple[Growth, ...]:
    """Along the lines of ancestors of the candidates with the best dear scores, best first: at most `lines` of them, no
    line that is part of an earlier one, each over the stretch of it that was measured in both stages."""
    if len(pairs) < LEAST_PAIRS:
        return ()
    known = {pair.candidate: pair for pair in pairs}
    found: list[Growth] = []
    seen: set[str] = set()
    for tip in sorted(pairs, key=lambda pair: -pair.dear):
        if len(found) == lines:
            break
        if tip.candidate in seen:
            continue
        ancestors = line_to(tip, known)
        seen.update(pair.candidate for pair in ancestors)
        growth = growth_along(ancestors, pairs[: min(CALIBRATION, len(pairs) // 2)])
        if growth is not None:
            found.append(growth)
    return tuple(found)


def growth_along(ancestors: Sequence[Pair], first: Sequence[Pair], confidence: float = CONFIDENCE) -> Growth | None:
    """Of what the cheap stage flatters, along a line, the oldest ancestor first: mean step with Student's interval.

    `first` are the pairs that the line between the scales is fitted to. None for fewer than 5 steps.
    """
    if len(ancestors) <= LEAST_STEPS or len(first) < 2:
        return None
    from scipy.special import stdtrit  # a tenth of a second to import, for those who ask

    scale = _scale([*ancestors, *first])
    line = fit(np.array([p.cheap / scale for p in first]), np.array([p.dear / scale for p in first]))
    if _one_scale(line):
        line = Line(1.0, 0.0)
    expected = np.array([line.offset + line.slope * (pair.cheap / scale) for pair in ancestors])
    steps = np.diff(expected - np.array([pair.dear / scale for pair in ancestors]))
    mean = float(steps.mean())
    half = float(stdtrit(len(steps) - 1, (1 + confidence) / 2) * steps.std(ddof=1) / math.sqrt(len(steps)))
    slope = Interval(*(_scaled(value, scale) for value in (mean, mean - half, mean + half)))
    rise = _scaled(float(expected[-1] - expected[0]), scale)
    return Growth(ancestors[-1].candidate, len(steps), slope, rise)


def line_to(tip: Pair, known: Mapping[str, Pair]) -> list[Pair]:
    """The line from its oldest known ancestor to a candidate, as far as both stages measured it without a gap."""
    line: list[Pair] = []
    step: Pair | None = tip
    names: set[str] = set()
    while step is not None and step.candidate not in names:
        line.append(step)
        names.add(step.candidate)
        step = None if step.parent is None else known.get(step.parent)
    return line[::-1]


def fit(xs: np.ndarray, ys: np.ndarray) -> Line:
    """Theil and Sen's line: median of the slopes of all pairs of points, none below zero, through the medians."""
    left, right = np.triu_indices(len(xs), 1)
    run = xs[right] - xs[left]
    apart = run != 0
    with np.errstate(over="ignore"):
        slopes = (ys[right] - ys[left])[apart] / run[apart]
    slopes = slopes[np.isfinite(slopes)]
    slope = max(0.0, float(np.median(slopes))) if len(slopes) else 0.0
    offset = float(np.median(ys) - slope * np.median(xs))
    return Line(slope, offset) if math.isfinite(offset) else Line(0.0, float(np.median(ys)))


def _one_scale(line: Line) -> bool:
    return SAME_SCALE[0] <= line.slope <= SAME_SCALE[1]


def _scale(pairs: Sequence[Pair]) -> float:
    """Of the largest score: sums and differences of what is divided by it are finite."""
    return max(max(abs(p.cheap), abs(p.dear)) for p in pairs) or 1.0


def _scaled(value: float, scale: float) -> float:
    """Back in units of the scores; the largest float where there is none so large."""
    largest = np.finfo(float).max
    return float(max(-largest, min(largest, value * scale)))


def weighted_spearman(xs: np.ndarray, ys: np.ndarray, weights: np.ndarray) -> float:
    """Rank correlation of points that stand for `weights` points each; 0 where one of the two does not vary."""
    rx, ry = _ranks(xs, weights), _ranks(ys, weights)
    total = weights.sum()
    dx, dy = rx - (weights * rx).sum() / total, ry - (weights * ry).sum() / total
    spread = math.sqrt(float((weights * dx * dx).sum()) * float((weights * dy * dy).sum()))
    return float((weights * dx * dy).sum()) / spread if spread > 0 else 0.0


def _ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Middle of the weight up to and with each value: equal values share their mean rank."""
    _, inverse = np.unique(values, return_inverse=True)
    each = np.bincount(inverse, weights)
    middle: np.ndarray = np.cumsum(each) - each / 2
    return middle[inverse]


def _interval(value: float, resampled: Sequence[float] | np.ndarray) -> Interval:
    low, high = np.quantile(resampled, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return Interval(value, float(low), float(high))
