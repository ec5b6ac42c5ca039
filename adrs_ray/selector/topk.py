"""The best few: what a search does that cares for scores alone (truncation selection)."""

from __future__ import annotations

from adrs_ray.selector import Elite, Placement
from adrs_ray.selector.listed import ListedArchive


class TopKArchive(ListedArchive):
    """The `capacity` candidates with the highest scores; among equals those that entered first."""

    def add(self, elite: Elite) -> Placement:
        """Offer a candidate. When the archive is full it takes the place of the worst, if it has a higher score."""
        rivals = self.rivals(elite)
        if any(rival.score >= elite.score for rival in rivals):
            return Placement(False)
        for rival in rivals:
            del self._elites[rival.candidate]
        self._elites[elite.candidate] = elite
        return Placement(True, None, tuple(rival.candidate for rival in rivals))

    def remove(self, candidate: str) -> bool:
        """Take a candidate out. False if it is not here."""
        return self._elites.pop(candidate, None) is not None

    def rivals(self, elite: Elite) -> tuple[Elite, ...]:
        """The worst elite, among equals the last that entered; () while there is room or the elite is here."""
        if len(self._elites) < self._capacity or elite.candidate in self._elites:
            return ()
        return (min(reversed(self._elites.values()), key=lambda kept: kept.score),)
