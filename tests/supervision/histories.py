"""Synthetic histories: an island that searches as it should, and plain outcomes to build sick ones from."""

from __future__ import annotations

import numpy as np

from adrs_ray.candidate import FailureKind
from adrs_ray.outcome import Outcome
from adrs_ray.selector import Elite
from adrs_ray.supervision.history import IslandHistory

WINDOW = 50
BINS = 8
KINDS = (FailureKind.CRASH, FailureKind.SYNTAX, FailureKind.TIMEOUT, FailureKind.INVALID, FailureKind.DUPLICATE)


def outcome(
    number: int,
    score: float | None = None,
    *,
    parents: tuple[str, ...] = (),
    failure: FailureKind | None = None,
    detail: str = "",
    shape: str = "",
) -> Outcome:
    """Candidate `c<number>`; it failed by a crash unless it has a score or another failure."""
    if score is None and failure is None:
        failure = FailureKind.CRASH
    return Outcome(
        f"c{number}", 0, number, "diff", ("small", "diff"), parents, score, failure=failure, detail=detail, shape=shape
    )


def elite(number: int, score: float = 0.0, descriptor: tuple[float, float] = (100.0, 0.5)) -> Elite:
    return Elite(f"c{number}", score, {}, descriptor, f"f{number}", f"s{number}")


def island(outcomes: list[Outcome], **changes: object) -> IslandHistory:
    """What a view would make of the whole past of an island."""
    best, gains = None, []
    for position, each in enumerate(outcomes, start=1):
        if each.score is not None and (best is None or each.score > best):
            best = each.score
            gains.append(position)
    values: dict[str, object] = {
        "island": 0,
        "outcomes": tuple(outcomes),
        "elites": tuple(elite(n) for n in range(30)),
        "capacity": 64,
        "terminal": len(outcomes),
        "since_gain": len(outcomes) - (gains[-1] if gains else 0),
        "gains": tuple(gains),
    }
    return IslandHistory(**(values | changes))  # type: ignore[arg-type]


class HealthyIsland:
    """MAP-Elites with explore, exploit and elite parents; about a third of candidates fail, gains become rarer."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self.outcomes = [outcome(0, 0.0, shape="s0")]
        self._cells = {(4, 0): elite(0, 0.0, (100.0, 0.0))}
        self._descriptors = {"c0": (100.0, 0.0)}
        self._shapes = {"c0": "s0"}
        self._gains = [1]
        self._best = 0.0

    def step(self) -> None:
        rng, number = self._rng, len(self.outcomes)
        elites = sorted(self._cells.values(), key=lambda e: -e.score)
        draw = rng.random()
        if draw < 0.2:
            parent = elites[rng.integers(len(elites))]
        elif draw < 0.8:
            weights = 1 / np.arange(1, len(elites) + 1)
            parent = elites[rng.choice(len(elites), p=weights / weights.sum())]
        else:
            parent = elites[0]
        parents = (parent.candidate,)
        if rng.random() < 0.15:
            parents = (*parents, elites[rng.integers(len(elites))].candidate)
        if rng.random() < 0.35:
            kind = KINDS[rng.choice(len(KINDS), p=[0.35, 0.2, 0.1, 0.2, 0.15])]
            self.outcomes.append(outcome(number, parents=parents, failure=kind, detail=f"line {number}"))
            return
        score = parent.score + rng.normal(-0.8 - 0.04 * len(self._gains), 1.0)
        size = max(20.0, parent.descriptor[0] * np.exp(rng.normal(0, 0.15)))
        distance = float(np.clip(parent.descriptor[1] + rng.normal(0.01, 0.07), 0, 1))
        child = elite(number, score, (size, distance))
        shape = self._shapes[parent.candidate] if rng.random() < 0.4 else f"s{number}"
        self._shapes[child.candidate] = shape
        self._descriptors[child.candidate] = child.descriptor[:2]
        self.outcomes.append(outcome(number, score, parents=parents, shape=shape))
        if score > self._best:
            self._best = score
            self._gains.append(len(self.outcomes))
        cell = (int(np.clip(np.log(size / 50) / np.log(4) * BINS, 0, BINS - 1)), min(int(distance * BINS), BINS - 1))
        if cell not in self._cells or self._cells[cell].score < score:
            self._cells[cell] = child

    def history(self) -> IslandHistory:
        """As the loop keeps it: four windows of outcomes."""
        return IslandHistory(
            island=0,
            outcomes=tuple(self.outcomes[-4 * WINDOW :]),
            elites=tuple(self._cells.values()),
            capacity=BINS * BINS,
            terminal=len(self.outcomes),
            since_gain=len(self.outcomes) - self._gains[-1],
            gains=tuple(self._gains),
            descriptors=self._descriptors,
        )
