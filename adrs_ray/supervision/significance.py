"""How likely chance alone is to do what a history shows: the few tests that detectors need, one-sided."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence


def share_rose(hits: int, trials: int, hits_before: int, trials_before: int) -> float:
    """Fisher's exact test: chance of so many hits now if the rate were the same before; 1 without trials before."""
    everything, all_hits = trials + trials_before, hits + hits_before
    ways = sum(
        math.comb(all_hits, i) * math.comb(everything - all_hits, trials - i)
        for i in range(hits, min(trials, all_hits) + 1)
    )
    return ways / math.comb(everything, trials)


def ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1; equal values share their mean rank."""
    order = sorted(range(len(values)), key=values.__getitem__)
    out = [0.0] * len(values)
    start = 0
    while start < len(order):
        stop = start
        while stop < len(order) and values[order[stop]] == values[order[start]]:
            stop += 1
        for index in order[start:stop]:
            out[index] = (start + 1 + stop) / 2
        start = stop
    return out


def lower(values: Sequence[float], others: Sequence[float]) -> float:
    """Mann and Whitney's test, normal approximation with ties: chance that `values` lie so low against `others`."""
    n, m = len(values), len(others)
    pooled = [*values, *others]
    ties = sum(count**3 - count for count in Counter(pooled).values())
    total = n + m
    variance = n * m / 12 * (total + 1 - ties / (total * (total - 1))) if total > 1 else 0.0
    if variance <= 0:
        return 1.0
    u = sum(ranks(pooled)[:n]) - n * (n + 1) / 2
    z = (u + 0.5 - n * m / 2) / math.sqrt(variance)
    return math.erfc(-z / math.sqrt(2)) / 2


def rank_correlation(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Spearman's rho, ties at their mean rank; 0 where one of the two does not vary."""
    rx, ry = ranks(xs), ranks(ys)
    middle = (len(rx) + 1) / 2
    sxx = sum((x - middle) ** 2 for x in rx)
    syy = sum((y - middle) ** 2 for y in ry)
    if sxx == 0 or syy == 0:
        return 0.0
    return sum((x - middle) * (y - middle) for x, y in zip(rx, ry, strict=True)) / math.sqrt(sxx * syy)


def drought(successes: int, trials: int, without: int) -> float:
    """Chance of `without` failures in a row after `successes` in `trials`, of which the last was one.

    (1 - p)^without averaged over what is known of p: Beta(successes, trials - successes + 1/2), the posterior under
    Jeffreys' prior for inverse sampling. A rate seen once or twice is worth little, as it should be. Needs one success.
    """
    a, b = float(successes), trials - successes + 0.5
    return math.exp(math.lgamma(b + without) - math.lgamma(b) + math.lgamma(a + b) - math.lgamma(a + b + without))
