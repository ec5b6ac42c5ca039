"""MAP-Elites grid archive (Mouret & Clune 2015, arXiv 1504.04909): the best candidate of every cell.

Axes: code size x token distance to the seed, both inside evolve blocks. The bounds are learned once, from the first
candidates, and then fixed for good: a candidate's cell never changes, values outside go to the border cells.
"""

from __future__ import annotations

from typing import TypeAlias

from adrs_ray.selector import Elite
from adrs_ray.selector.cells import CellArchive

Cell: TypeAlias = tuple[int, int]
Bounds: TypeAlias = tuple[tuple[float, float], tuple[float, float]]


class GridArchive(CellArchive):
    """`bins` x `bins` cells over the first two numbers of the descriptor."""

    def __init__(self, bins: int, learn_bounds_from: int) -> None:
        super().__init__(learn_bounds_from)
        self._bins = bins
        self._bounds: Bounds | None = None

    @property
    def bounds(self) -> Bounds | None:
        """((size low, high), (distance low, high)) once learned, else None."""
        return self._bounds

    @property
    def capacity(self) -> int:
        return self._bins * self._bins

    def cell_of(self, descriptor: tuple[float, ...]) -> Cell | None:
        """The cell of a descriptor, None while the bounds are being learned."""
        if self._bounds is None:
            return None
        size, distance = (
            min(max(int((value - low) / (high - low) * self._bins), 0), self._bins - 1)
            for value, (low, high) in zip(descriptor[:2], self._bounds, strict=True)
        )
        return size, distance

    def _cell(self, elite: Elite) -> Cell | None:
        return self.cell_of(elite.descriptor)

    def _learn(self, early: list[Elite]) -> None:
        sizes, distances = zip(*(elite.descriptor[:2] for elite in early), strict=True)
        self._bounds = _widened(sizes), _widened(distances)


def _widened(values: tuple[float, ...]) -> tuple[float, float]:
    """Twice the observed range around its middle, at least 10 % of the value wide: later candidates differ more."""
    low, high = min(values), max(values)
    half = max(high - low, 0.1 * abs(high), 1e-9)
    middle = (low + high) / 2
    return middle - half, middle + half
