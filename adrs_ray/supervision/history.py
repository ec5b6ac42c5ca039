"""What detectors look at: the recent past of an island and of a run, as plain values that a journal view fills."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from adrs_ray.config import BudgetConfig
from adrs_ray.fidelity import Growth
from adrs_ray.outcome import Outcome
from adrs_ray.selector import Elite


@dataclass(frozen=True, slots=True)
class IslandHistory:
    """One island's past. Four windows of outcomes are enough."""

    island: int
    outcomes: Sequence[Outcome]
    """Its candidates in terminal states, latest last."""
    elites: Sequence[Elite]
    """What its archive holds now."""
    capacity: int
    """Of its archive."""
    terminal: int
    """Its candidates in terminal states over the whole run, so `terminal >= len(outcomes)`."""
    since_gain: int
    """Candidates since its best score last rose; all of them when there is no valid one."""
    gains: Sequence[int] = ()
    """Whenever its best score rose, what `terminal` was then, that candidate included; over the whole run, ascending,
    the first valid candidate first. () where nobody counted."""
    descriptors: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """(size, distance to the seed, ...) of recent valid candidates that are no elites."""


@dataclass(frozen=True, slots=True)
class Best:
    """A candidate that was the best of the run on train when it was admitted."""

    candidate: str
    score: float
    """On train."""
    metrics: Mapping[str, float]
    """On train."""
    validation: float | None = None
    """Score there; None where it failed or was not judged."""
    judged: bool = False
    """Whether it was judged on validation."""


@dataclass(frozen=True, slots=True)
class RequestResult:
    """How a request to a model ended."""

    model: str
    ok: bool
    """A usable answer: neither an error nor an answer that nothing can be read from."""
    reason: str = ""
    """Why not, one line."""


@dataclass(frozen=True, slots=True)
class Spending:
    """What a run has used up by some moment."""

    candidates: int = 0
    usd: float = 0.0
    tokens: int = 0
    gpu_s: float = 0.0
    wall_s: float = 0.0
    """Of this start of the run."""


@dataclass(frozen=True, slots=True)
class RunHistory:
    """A run's past, all islands together."""

    bests: Sequence[Best]
    """Successive bests, latest last; the last few dozen are enough."""
    metrics: Mapping[str, Literal["min", "max"]]
    """Direction in which each metric that the task declares improves."""
    spent: Spending
    earlier: Spending
    """The same at a moment before, of this start of the run: recent rates are the difference."""
    limits: BudgetConfig
    requests: Sequence[RequestResult] = ()
    """Of all models, latest last; some dozens of each are enough."""
    growth: tuple[str, Growth] | None = None
    """Of a task with stages: a cheap one, and how what it flatters grows along the best candidate's line."""
