"""MAP-Elites grid archive (Mouret & Clune 2015, arXiv 1504.04909): the best candidate of every cell.

Axes: code size x token distance to the seed, both inside evolve blocks. The bounds are learned once, from the first
candidates, and then fixed for good: a candidate's cell never changes, values outside go to the border cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from adrs_ray.selector import Elite

Cell: TypeAlias = tuple[int, int]
Bounds: TypeAlias = tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Placement:
    """What `add` did: whether the candidate is in the archive now, and whom it pushed out."""

    kept: bool
    cell: Cell | None
    """None while the bounds are being learned."""
    replaced: str | None = None


class GridArchive:
    """The best candidate per cell; the same sequence of `add` and `remove` always gives the same archive."""

    def __init__(self, bins: int, learn_bounds_from: int) -> None:
        self._bins = bins
        self._learn_bounds_from = learn_bounds_from
        self._added = 0
        self._bounds: Bounds | None = None
        self._early: dict[str, Elite] = {}
        """Everything added before the bounds are known, by candidate, in order."""
        self._cells: dict[Cell, Elite] = {}
        self._where: dict[str, Cell] = {}

    @property
    def bounds(self) -> Bounds | None:
        """((size low, high), (distance low, high)) once learned, else None."""
        return self._bounds

    @property
    def capacity(self) -> int:
        return self._bins * self._bins

    def __len__(self) -> int:
        return len(self._early) + len(self._cells)

    def __iter__(self) -> Iterator[Elite]:
        """All elites, in the order in which they entered."""
        yield from self._early.values()
        yield from self._cells.values()

    def __contains__(self, candidate: str) -> bool:
        return candidate in self._early or candidate in self._where

    def best(self) -> Elite | None:
        """The elite with the highest score; among equals the one that entered first."""
        return max(self, key=lambda elite: elite.score, default=None)

    def add(self, elite: Elite) -> Placement:
        """Offer a candidate. It takes its cell if that is empty or holds a lower score; an equal score stays out."""
        self._added += 1
        if self._bounds is not None:
            return self._place(elite)
        self._early[elite.candidate] = elite
        if self._added < self._learn_bounds_from:
            return Placement(True, None)
        self._bounds = _bounds_of([e.descriptor for e in self._early.values()])
        early, self._early = list(self._early.values()), {}
        placements = {e.candidate: self._place(e) for e in early}
        return Placement(elite.candidate in self, placements[elite.candidate].cell)

    def remove(self, candidate: str) -> bool:
        """Take a candidate out (a ban, a re-measurement); its cell is then empty. False if it is not here."""
        if self._early.pop(candidate, None) is not None:
            return True
        cell = self._where.pop(candidate, None)
        if cell is None:
            return False
        del self._cells[cell]
        return True

    def cell_of(self, descriptor: tuple[float, float]) -> Cell | None:
        """The cell of a descriptor, None while the bounds are being learned."""
        if self._bounds is None:
            return None
        size, distance = (
            min(max(int((value - low) / (high - low) * self._bins), 0), self._bins - 1)
            for value, (low, high) in zip(descriptor, self._bounds, strict=True)
        )
        return size, distance

    def _place(self, elite: Elite) -> Placement:
        cell = self.cell_of(elite.descriptor)
        assert cell is not None
        holder = self._cells.get(cell)
        if holder is not None and holder.score >= elite.score:
            return Placement(False, cell)
        if holder is not None:
            del self._where[holder.candidate]
            del self._cells[cell]
        self._cells[cell] = elite
        self._where[elite.candidate] = cell
        return Placement(True, cell, holder.candidate if holder else None)


def _bounds_of(descriptors: list[tuple[float, float]]) -> Bounds:
    """Twice the observed range around its middle, at least 10 % of the value wide: later candidates differ more."""

    def widen(values: list[float]) -> tuple[float, float]:
        low, high = min(values), max(values)
        half = max(high - low, 0.1 * abs(high), 1e-9)
        middle = (low + high) / 2
        return middle - half, middle + half

    return widen([d[0] for d in descriptors]), widen([d[1] for d in descriptors])
