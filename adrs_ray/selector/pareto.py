"""Per-instance Pareto archive (GEPA, arXiv 2507.19457): whoever is best on some case, and the best over all.

A candidate that is mediocre on average survives while it is unbeaten on one case, so that what it knows about that case
can still be combined with others.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

from adrs_ray.selector import Elite, Placement
from adrs_ray.selector.listed import ListedArchive


class ParetoArchive(ListedArchive):
    """Elites that no other beats on at least one case (ties count), and the best by score; at most `capacity`.

    A case is held by the first of those that are best on it. Beyond the capacity whoever holds fewest cases goes, among
    equals the lowest score, then the last comer; the best by score never goes. Elites without cases are on no front
    and stay while there is room: where a task has no cases the archive is that of the `capacity` best.

    `add` costs O(cases + capacity), amortised over the ties that a newcomer ends.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._tops: list[float] = []
        """Per case: the highest figure in the archive."""
        self._fronts: list[dict[str, None]] = []
        """Per case: who has that figure, the holder first."""
        self._leads: dict[str, int] = {}
        """Per candidate: on how many fronts it is."""

    def add(self, elite: Elite) -> Placement:
        """Offer a candidate; those that are then best on nothing are pushed out."""
        self._enter(elite)
        lost = self._losers()
        for loser in lost:
            self._leave(loser)
        kept = elite.candidate in self._elites
        return Placement(kept, None, tuple(e.candidate for e in lost if e.candidate != elite.candidate))

    def remove(self, candidate: str) -> bool:
        """Take a candidate out; the cases it held go to the next best of those here. False if it is not here."""
        elite = self._elites.get(candidate)
        if elite is not None:
            self._leave(elite)
        return elite is not None

    def rivals(self, elite: Elite) -> tuple[Elite, ...]:
        """Whose score it must exceed to be kept: nobody's where its cases suffice or it is here.

        Otherwise the weakest of a full archive, if that holds as many cases; else the best.
        """
        best = self.best()
        if best is None or elite.candidate in self._elites:
            return ()
        lowest = replace(elite, score=-math.inf)
        self._enter(lowest)  # for a look at what would happen: entering and leaving again changes nothing
        lost, held = self._losers(), self._held()
        on_a_front = not elite.cases or self._leads[elite.candidate] > 0
        self._leave(lowest)
        if lowest not in lost:
            return ()
        weakest = self._weakest([e for e in self if e not in lost and e is not best], held)
        if on_a_front and weakest is not None and held[weakest.candidate] == held[elite.candidate]:
            return (weakest,)
        return (best,)

    def _losers(self) -> list[Elite]:
        """Who has to go: those that are best on nothing, then one if there are still too many."""
        best = self.best()
        lost = [e for e in self if e is not best and e.cases and not self._leads[e.candidate]]
        if len(self) - len(lost) > self._capacity:
            weakest = self._weakest([e for e in self if e is not best and e not in lost], self._held())
            lost += [] if weakest is None else [weakest]
        return lost

    def _weakest(self, elites: list[Elite], held: Counter[str]) -> Elite | None:
        return min(reversed(elites), key=lambda e: (held[e.candidate], e.score), default=None)

    def _held(self) -> Counter[str]:
        """Per candidate: on how many fronts it stands first."""
        return Counter(next(iter(front)) for front in self._fronts if front)

    def _enter(self, elite: Elite) -> None:
        self._elites[elite.candidate] = elite
        self._leads[elite.candidate] = 0
        for case in range(len(elite.cases)):
            self._join(case, elite)

    def _join(self, case: int, elite: Elite) -> None:
        """Put an elite on the front of a case if it is best there. A figure that is no number is best nowhere."""
        if case == len(self._tops):
            self._tops.append(-math.inf)
            self._fronts.append({})
        figure = elite.cases[case]
        if figure > self._tops[case]:
            for beaten in self._fronts[case]:
                self._leads[beaten] -= 1
            self._tops[case], self._fronts[case] = figure, {}
        if figure == self._tops[case]:
            self._fronts[case][elite.candidate] = None
            self._leads[elite.candidate] += 1

    def _leave(self, elite: Elite) -> None:
        del self._elites[elite.candidate]
        del self._leads[elite.candidate]
        for case in range(len(elite.cases)):
            front = self._fronts[case]
            if front.pop(elite.candidate, 0) is None and not front:
                self._tops[case] = -math.inf
                for other in self:
                    if case < len(other.cases):
                        self._join(case, other)
