"""Elites as points: descriptor and per-case figures as one row, and quantiles that make unlike figures comparable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from adrs_ray.selector import Elite

Rows: TypeAlias = NDArray[np.float64]
Widths: TypeAlias = tuple[int, int]

LARGEST = 1e150
"""Figures are clipped to this, so that differences and squares stay finite."""


def widths(elites: Sequence[Elite]) -> Widths:
    """The most descriptor and the most case figures that any of the elites has."""
    return max(len(elite.descriptor) for elite in elites), max(len(elite.cases) for elite in elites)


def rows(elites: Sequence[Elite], widths: Widths) -> Rows:
    """Shape (elites, sum of widths): descriptor, then cases, cut off at these widths; NaN where an elite has none."""
    table: Rows = np.full((len(elites), sum(widths)), np.nan)
    for row, elite in zip(table, elites, strict=True):
        descriptor, cases = elite.descriptor[: widths[0]], elite.cases[: widths[1]]
        row[: len(descriptor)] = descriptor
        row[widths[0] : widths[0] + len(cases)] = cases
    return table.clip(-LARGEST, LARGEST)


class Quantiles:
    """The empirical distribution of every column of some rows, frozen."""

    def __init__(self, learned_from: Rows) -> None:
        self._steps = [_steps(column[~np.isnan(column)]) for column in learned_from.T]

    def __call__(self, table: Rows) -> Rows:
        """Each figure as its quantile in [0, 1], linear between those learned from; 0.5 for NaN and constant columns.

        Equal figures share the mean of their ranks. `table` has the columns learned from.
        """
        scaled = np.empty_like(table)
        for number, (values, quantiles) in enumerate(self._steps):
            scaled[:, number] = np.interp(table[:, number], values, quantiles)
        return np.clip(np.where(np.isnan(table), 0.5, scaled), 0.0, 1.0)


def _steps(figures: Rows) -> tuple[Rows, Rows]:
    """The different values in order, and the quantile of each."""
    if len(figures) < 2:
        return np.zeros(1), np.full(1, 0.5)
    values, counts = np.unique(figures, return_counts=True)
    mean_ranks = counts.cumsum() - (counts + 1) / 2
    return values, mean_ranks / (len(figures) - 1)
