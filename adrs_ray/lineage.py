"""What an island remembers of lineages: reference scores, what was tried on whom, how children ended. Pure.

Two floats per candidate and a few lines per parent: nothing else grows with the run.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from adrs_ray.candidate import FailureKind
from adrs_ray.outcome import Outcome
from adrs_ray.prompt import Attempt
from adrs_ray.selector import Children

REPAIRABLE = frozenset(
    {
        FailureKind.SYNTAX,
        FailureKind.INTERFACE,
        FailureKind.CRASH,
        FailureKind.TIMEOUT,
        FailureKind.MEMORY,
        FailureKind.OUTPUT,
        FailureKind.INVALID,
    }
)
"""Failures that a small change may mend."""
LARGEST = sys.float_info.max
"""Scores may be any finite numbers, and their difference none."""
ANCESTORS = 4
"""Steps back on a parent's own line that are told beside the tries from it."""
MOST_BROKEN = 8
"""Programs kept for repair, the latest."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A failed program that may be repaired."""

    candidate: str
    source: str
    """Text ref."""


class Lineage:
    """Built by `refer` and `learn` in the order of the journal."""

    def __init__(self, attempts: int) -> None:
        """`attempts`: tries per parent that are remembered; 0 where there are no prompts to tell them in."""
        self._most = attempts
        self._reference: dict[str, float] = {}
        """Candidate -> its score, or that of the parent it was made from when it failed."""
        self._tried: dict[str, deque[Attempt]] = {}
        self._own: dict[str, tuple[str | None, Attempt]] = {}
        """Candidate -> (first parent, the try it was)."""
        self._broken: deque[Broken] = deque(maxlen=MOST_BROKEN)
        self._best: float | None = None
        self.children: dict[str, Children] = {}
        self.since_rise = 0
        """Decisions since the best score of this island last rose."""
        self.rises: list[int] = []
        """Decisions in a terminal state by each such rise."""
        self._terminal = 0

    def refer(self, candidate: str, score: float) -> None:
        """The score of a candidate of this or another island, after `learn` where it is one of this island's own."""
        self._reference[candidate] = score
        self._best = score if self._best is None else max(self._best, score)

    def gain(self, parents: Sequence[str], score: float) -> float | None:
        """How far a score lies above its first parent's, finite; None without a parent of known score."""
        reference = self._reference.get(parents[0]) if parents else None
        return None if reference is None else max(-LARGEST, min(LARGEST, score - reference))

    def rise(self, score: float | None) -> float:
        """By how much a score beats all before it on this island; 0 when it does not, or failed."""
        if score is None or self._best is None:
            return 0.0
        return max(0.0, score - self._best)

    def learn(self, outcome: Outcome, broken: str | None) -> None:
        """How a decision ended; `broken` is the text ref of a program that failed."""
        improved = outcome.gain is not None and outcome.gain > 0
        for parent in outcome.parents:
            before = self.children.get(parent, Children())
            self.children[parent] = Children(before.tried + 1, before.improved + improved)
        self._terminal += 1
        self.since_rise += 1
        if outcome.score is not None:
            self._reference[outcome.candidate] = outcome.score
            if self._best is None or outcome.score > self._best:
                self.since_rise = 0
                self.rises.append(self._terminal)
        elif outcome.parents and outcome.parents[0] in self._reference:
            self._reference[outcome.candidate] = self._reference[outcome.parents[0]]
        if self._most:
            self._remember(outcome)
            if broken is not None and outcome.failure in REPAIRABLE:
                self._broken.append(Broken(outcome.candidate, broken))

    def _remember(self, outcome: Outcome) -> None:
        failure = None if outcome.failure is None else f"{outcome.failure.value}: {outcome.detail}"
        attempt = Attempt(outcome.candidate, outcome.operator, outcome.note, outcome.gain, failure)
        first = outcome.parents[0] if outcome.parents else None
        self._own[outcome.candidate] = (first, attempt)
        if first is not None:
            self._tried.setdefault(first, deque(maxlen=self._most)).append(attempt)

    def note(self, candidate: str) -> str:
        """What was tried when a candidate was made; '' for seeds and migrants."""
        own = self._own.get(candidate)
        return "" if own is None else own[1].note

    def attempts(self, parent: str) -> tuple[Attempt, ...]:
        """How the line led to a parent, then what was tried from it, latest last."""
        line: list[Attempt] = []
        step: str | None = parent
        while step is not None and step in self._own and len(line) < ANCESTORS:
            step, attempt = self._own[step]
            line.append(attempt)
        return (*reversed(line), *self._tried.get(parent, ()))

    @property
    def repairable(self) -> Broken | None:
        """The latest program that failed and was not taken for repair."""
        return self._broken[-1] if self._broken else None

    def take_repairable(self) -> Broken | None:
        """The same, taken: each failure is repaired once at most."""
        return self._broken.pop() if self._broken else None

    def forget_repair(self, candidate: str) -> None:
        """It shall not be repaired."""
        self._broken = deque((b for b in self._broken if b.candidate != candidate), maxlen=MOST_BROKEN)

    @property
    def repairable_sources(self) -> set[str]:
        """Text refs of the programs kept for repair."""
        return {broken.source for broken in self._broken}
