"""Robust figures of few measurements: medians, rank correlation and intervals by resampling. Pure numpy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Values = Sequence[float] | NDArray[np.float64]
RESAMPLES = 1000


def median(values: Values) -> float:
    """The median. Raises ValueError without values."""
    return float(np.median(_filled(values)))


def quantile(values: Values, level: float) -> float:
    """The `level` quantile, 0 to 1, linear between neighbours. Raises ValueError without values."""
    return float(np.quantile(_filled(values), level))


def geometric_mean(values: Values) -> float:
    """exp(mean(log)). Raises ValueError without values or for one that is not above zero."""
    array = _filled(values)
    if not (array > 0).all():
        raise ValueError(f"a geometric mean needs values above zero, found {float(array.min())}")
    return float(np.exp(np.log(array).mean()))


def bootstrap_interval(
    values: Values,
    statistic: Callable[[NDArray[np.float64]], float] = median,
    level: float = 0.95,
    seed: int | Sequence[int] = 0,
    resamples: int = RESAMPLES,
) -> tuple[float, float]:
    """Percentile bootstrap (Efron 1979): the central `level` of `statistic` over `resamples` draws with replacement.

    `statistic` maps one float64 vector to a number. Equal arguments give equal intervals. The interval of one value is
    that value. Raises ValueError without values.
    """
    array = _filled(values)
    drawn = array[np.random.default_rng(seed).integers(0, array.size, size=(resamples, array.size))]
    # The common case in one call of numpy: timing loops ask for it after each pair.
    figures = np.median(drawn, axis=1) if statistic is median else np.array([statistic(row) for row in drawn])
    low, high = np.quantile(figures, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def spearman(a: Values, b: Values) -> float:
    """Rank correlation, equal values sharing the mean of their ranks; 0 where one side is constant.

    Raises ValueError when the lengths differ or are below two.
    """
    left, right = _filled(a), _filled(b)
    if left.shape != right.shape or left.size < 2:
        raise ValueError(
            f"rank correlation needs two equally long lists of at least 2, found {left.size}, {right.size}"
        )
    ranks = [_ranks(side) - (left.size - 1) / 2 for side in (left, right)]
    scale = float(np.sqrt((ranks[0] @ ranks[0]) * (ranks[1] @ ranks[1])))
    return float(ranks[0] @ ranks[1]) / scale if scale else 0.0


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts + 1) / 2)[place.reshape(-1)], dtype=np.float64)


def _filled(values: Values) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64).reshape(-1)
    if not array.size:
        raise ValueError("no values")
    return array
