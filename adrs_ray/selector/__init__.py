"""Solution Selector: archives, parent rules, migration. Pure: values in, values out, the random generator passed in."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Elite:
    """A valid candidate as the selector sees it; its program is kept elsewhere under `source` (a text ref)."""

    candidate: str
    score: float
    """On train, higher is better; the mean where it was measured more than once."""
    metrics: Mapping[str, float]
    descriptor: tuple[float, ...]
    """(size, distance to the seed, then features of the syntax tree), see `adrs_ray.program.describe`."""
    fingerprint: str
    source: str
    cases: tuple[float, ...] = ()
    """One figure per train case, in the order of the cases, higher is better; () where the task has none."""
    error: float = 0.0
    """Standard error of `score`; 0 where it was measured once."""
    repeats: int = 1


@dataclass(frozen=True, slots=True)
class Placement:
    """What `add` did: whether the candidate is in the archive now, and whom it pushed out."""

    kept: bool
    cell: Hashable | None = None
    """Where it lies, or would lie; None while cells are being learned, and where there are none."""
    replaced: tuple[str, ...] = ()


class Archive(Protocol):
    """The elites of an island. The same sequence of `add`, `remove` and `freeze` always gives the same archive.

    A candidate is added at most once; one that was removed may be added again (with another score).
    """

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Elite]:
        """All elites, in the order in which they entered."""
        ...

    def __contains__(self, candidate: str) -> bool: ...

    @property
    def capacity(self) -> int:
        """The most elites it can hold, once its cells are fixed."""
        ...

    def best(self) -> Elite | None:
        """The elite with the highest score; among equals the one that entered first."""
        ...

    def add(self, elite: Elite) -> Placement:
        """Offer a candidate. Among equals the one that is there stays."""
        ...

    def remove(self, candidate: str) -> bool:
        """Take a candidate out (a ban, a re-measurement). False if it is not here. Nobody comes back in its place."""
        ...

    def freeze(self) -> None:
        """Fix the cells now, from what was added so far; nothing happens where that makes no sense or was done."""
        ...

    def rivals(self, elite: Elite) -> tuple[Elite, ...]:
        """Who would have to be beaten for `elite` to get a place: () when it would get one anyway."""
        ...


@dataclass(frozen=True, slots=True)
class Children:
    """How an elite's children ended."""

    tried: int = 0
    improved: int = 0
    """Children that scored above it."""


@dataclass(frozen=True, slots=True)
class ParentContext:
    """What parent rules may look at beside the elites."""

    exploration: float
    """Share of parents drawn uniformly, as configured or as adaptation has it."""
    progress: float = 0.0
    """Share of the island's part of the budget that is used, 0 to 1."""
    children: Mapping[str, Children] = field(default_factory=dict)
    """By candidate; elites without children may be missing."""
    pinned: tuple[str, ...] = ()
    """Candidates that a person wants as parents."""
