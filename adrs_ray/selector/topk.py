"""The best few: what a search does that cares for scores alone (truncation selection)."""

from __future__ import annotations

from collections.abc import Iterator

from adrs_ray.selector import Elite, Placement


class TopKArchive:
    """The `capacity` candidates with the highest scores; among equals those that entered first."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._elites: dict[str, Elite] = {}
        """By candidate, in the order of entry."""

    @property
    def capacity(self) -> int:
        return self._capacity

    def __len__(self) -> int:
        return len(self._elites)

    def __iter__(self) -> Iterator[Elite]:
        """All elites, in the order in which they entered."""
        return iter(self._elites.values())

    def __contains__(self, candidate: str) -> bool:
        return candidate in self._elites

    def best(self) -> Elite | None:
        """The elite with the highest score; among equals the one that entered first."""
        return max(self, key=lambda elite: elite.score, default=None)

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

    def freeze(self) -> None:
        """Nothing: there are no cells."""

    def rivals(self, elite: Elite) -> tuple[Elite, ...]:
        """The worst elite, among equals the last that entered; () while there is room or the elite is here."""
        if len(self._elites) < self._capacity or elite.candidate in self._elites:
            return ()
        return (min(reversed(self._elites.values()), key=lambda kept: kept.score),)
