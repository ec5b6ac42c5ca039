"""What archives with cells share: the best candidate of every cell, cells fixed once and for good.

Until the cells are fixed everything is kept. They are learned from the first candidates, so that nobody has to know a
task's ranges beforehand; afterwards a candidate's cell never changes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator

from adrs_ray.selector import Elite, Placement


class CellArchive(ABC):
    """MAP-Elites (Mouret & Clune 2015, arXiv 1504.04909) over cells that a subclass defines."""

    def __init__(self, learn_from: int) -> None:
        """Cells are fixed at the `learn_from`-th candidate that is added, or by `freeze`."""
        self._learn_from = learn_from
        self._added = 0
        self._frozen = False
        self._early: dict[str, Elite] = {}
        """Everything added before the cells are fixed, by candidate, in order."""
        self._cells: dict[Hashable, Elite] = {}
        self._where: dict[str, Hashable] = {}

    @property
    @abstractmethod
    def capacity(self) -> int:
        """The number of cells."""

    @abstractmethod
    def _learn(self, early: list[Elite]) -> None:
        """Fix the cells from these elites, at least one. Called once."""

    @abstractmethod
    def _cell(self, elite: Elite) -> Hashable:
        """The cell of an elite. Called after `_learn` only."""

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
        """Offer a candidate. It takes its cell if that is empty or holds a lower score; an equal score stays out.

        The add that fixes the cells pushes out whoever of the first candidates is not the best of a cell.
        """
        self._added += 1
        if self._frozen:
            return self._place(elite)
        self._early[elite.candidate] = elite
        if self._added < self._learn_from:
            return Placement(True)
        early = list(self._early)
        self.freeze()
        lost = tuple(candidate for candidate in early if candidate not in self and candidate != elite.candidate)
        return Placement(elite.candidate in self, self._cell(elite), lost)

    def remove(self, candidate: str) -> bool:
        """Take a candidate out; its cell is then empty. False if it is not here."""
        if self._early.pop(candidate, None) is not None:
            return True
        if candidate not in self._where:
            return False
        del self._cells[self._where.pop(candidate)]
        return True

    def freeze(self) -> None:
        """Fix the cells now; nothing happens while the archive is empty, or when it was done."""
        if self._frozen or not self._early:
            return
        early, self._early = list(self._early.values()), {}
        self._learn(early)
        self._frozen = True
        for elite in early:
            self._place(elite)

    def rivals(self, elite: Elite) -> tuple[Elite, ...]:
        """The holder of its cell; () while cells are learned, where the cell is empty or holds the elite itself."""
        holder = self._cells.get(self._cell(elite)) if self._frozen else None
        return () if holder is None or holder.candidate == elite.candidate else (holder,)

    def _place(self, elite: Elite) -> Placement:
        cell = self._cell(elite)
        holder = self._cells.get(cell)
        if holder is not None and holder.score >= elite.score:
            return Placement(False, cell)
        if holder is not None:
            del self._where[holder.candidate]
            del self._cells[cell]  # so that the newcomer stands last in the order of entry
        self._cells[cell] = elite
        self._where[elite.candidate] = cell
        return Placement(True, cell, () if holder is None else (holder.candidate,))
