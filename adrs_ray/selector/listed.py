"""What archives without cells share: their elites by candidate, in the order in which they entered."""

from __future__ import annotations

from collections.abc import Iterator

from adrs_ray.selector import Elite


class ListedArchive:
    """Who is kept is a subclass's business."""

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

    def freeze(self) -> None:
        """Nothing: there are no cells."""
