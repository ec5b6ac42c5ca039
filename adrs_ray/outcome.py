"""How candidates ended, in the few words that selection, prompts and health need; a view of settled events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from adrs_ray.candidate import FailureKind


@dataclass(frozen=True, slots=True)
class Outcome:
    """One candidate in a terminal state."""

    candidate: str
    island: int
    decision: int
    operator: str
    """As the completion said, such as `diff` or `mutate:literal`."""
    arm: tuple[str, str]
    """(model, operator) that was chosen for it."""
    parents: tuple[str, ...]
    score: float | None
    """On train; None when it failed."""
    gain: float | None = None
    """Score less that of the first parent at the time; None when it failed or had no parent."""
    failure: FailureKind | None = None
    detail: str = ""
    """Of the failure, one line."""
    cost: float = 0.0
    """Dollars, else GPU-seconds, else thousands of tokens, over all requests made for it; 0 for the mutator."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    shape: str = ""
    """Digest of the syntax tree with literals blanked: equal for two programs that differ in constants only."""
    note: str = ""
    """What was tried, one line in the model's or the edit's words."""
    stages: Mapping[str, float] = field(default_factory=dict)
    """Of a task with stages, the scores on train of those that it passed, in their order."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What an island says of a candidate that ended: how it is placed, compared and told about."""

    descriptor: tuple[float, ...] = ()
    cases: tuple[float, ...] = ()
    error: float = 0.0
    repeats: int = 1
    gain: float | None = None
    shape: str = ""
    stages: Mapping[str, float] = field(default_factory=dict)
    """As of Outcome."""
    ops: tuple[str, ...] = ()
    """Steps of the island since the last settled event: the order that a strict replay keeps."""
